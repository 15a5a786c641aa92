"""The scripts that the manifests carry: run as they are, with real sockets and in a real shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests import needs
from tests.unit.manifested import Object, file_of
from tests.unit.net_script import FOLDER, OWN, Net, net_in
from torchnet.k8s.addons.addon_options import BACKEND, EXAMPLE, MULTUS, WHEREABOUTS, parse
from torchnet.k8s.addons.catalog import render
from torchnet.k8s.addons.node_ranges import NODES, TEMPLATE

net = pytest.fixture(net_in)


def test_show_tells_every_interface_with_its_addresses(net: Net) -> None:
    lines = net("show").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [name for _, name in socket.if_nameindex()]
    (loopback,) = [line for line in lines if line.startswith("lo ")]
    assert loopback.split() == ["lo", "mtu", "65536", "127.0.0.1/8", "::1/128"]


def test_a_probe_reaches_with_full_size(net: Net) -> None:
    ran = net("probe", OWN)
    assert ran.returncode == 0, ran.stderr
    line = r"65535 bytes from ::1 reached ::1: seq={} time=[0-9.]+ ms"
    assert all(re.fullmatch(line.format(n), text) for n, text in enumerate(ran.stdout.splitlines(), 1))
    assert len(ran.stdout.splitlines()) == 3


def test_a_probe_over_another_interface_is_no_success(net: Net) -> None:
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not others:
        pytest.skip("this machine has no interface but lo")
    ran = net("probe", OWN, INTERFACE=others[0])
    assert ran.returncode == 1
    assert f"the route to {OWN} does not use {others[0]}" in ran.stderr


def test_a_probe_that_is_not_refused_is_no_success(net: Net) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as silent:
        silent.bind((OWN, 0))
        text = (FOLDER / "net.py").read_text()
        assert "getaddrinfo(host, 9, " in text
        ran = subprocess.run(
            [sys.executable, "-", "probe", OWN],
            input=text.replace("getaddrinfo(host, 9, ", f"getaddrinfo(host, {silent.getsockname()[1]}, "),
            env={**os.environ, "INTERFACE": "lo"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ran.returncode == 1
    assert "no response from ::1 to packets of 65535 bytes from ::1" in ran.stderr


@pytest.mark.parametrize("command", [("probe", "::1"), ("wait",)], ids=lambda words: words[0])
def test_a_missing_interface_is_named(net: Net, command: tuple[str, ...]) -> None:
    ran = net(*command, INTERFACE="net77", limit=0)
    assert ran.returncode == 1
    assert "net77 is missing" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "words", [(), ("probe",), ("probe", "a", "b"), ("discover",), ("show", "x"), ("help",)]
)
def test_wrong_words_are_answered_with_the_right_ones(net: Net, words: tuple[str, ...]) -> None:
    ran = net(*words)
    assert ran.returncode == 1
    assert "python3 net.py probe HOST" in ran.stderr


def test_the_pods_carry_the_scripts_as_they_are() -> None:
    config_map = render(EXAMPLE, parse(EXAMPLE, {}))[0][0].body
    assert config_map["data"] == {path.name: path.read_text() for path in FOLDER.glob("*.py")}
    assert set(config_map["data"]) == {"net.py", "train.py"}


# -- the shell's


def shell_scripts() -> list[str]:
    found = []
    for name, given in ((MULTUS, {}), (WHEREABOUTS, {}), (BACKEND, {"slices": ["a=fcbb:0:800:ffff:1::/80"]})):
        for manifest in render(name, parse(name, given))[0]:
            spec = manifest.body.get("spec", {}).get("template", {}).get("spec", {})
            for container in spec.get("containers", []):
                probe = container.get("readinessProbe", {}).get("exec", {}).get("command", [])
                for words in ([*container["command"], *container.get("args", [])], probe):
                    if words[:1] == ["/bin/sh"]:
                        assert words[1] == "-c"
                        found.append(words[2])
    return found


@pytest.mark.parametrize("script", shell_scripts(), ids=lambda text: text.split()[0])
def test_the_shells_scripts_are_scripts(script: str) -> None:
    checked = subprocess.run(["sh", "-n", "-c", script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def given(node: str, *, part: int, mode: str = "l2") -> Object:
    """The ConfigMap that gives ``node`` a part of the range, and another the next one."""
    parts = [f"{node}=fcbb:0:800:ffff:{part}::/80", f"other=fcbb:0:800:ffff:{part + 1}::/80"]
    manifests, _ = render(BACKEND, parse(BACKEND, {"slices": parts, "mode": mode}))
    return dict(manifests[1].body)


def bring(folder: Path, config_map: Object) -> None:
    """As the kubelet does: all of a ConfigMap's files in a folder, which then takes the place of the old one."""
    new = folder.with_name(f"slices-{time.monotonic_ns()}")
    new.mkdir()
    for name, text in config_map["data"].items():
        (new / name).write_text(text)
    link = folder.with_name("link")
    link.symlink_to(new)
    link.replace(folder)


# As in the image, whose programs are all busybox, and as on this machine.
SHELLS = ["busybox", "sh"]


@pytest.fixture(params=SHELLS)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH."""
    path = os.environ["PATH"]
    if request.param == "sh":
        return path
    busybox = needs.program("busybox")
    folder = tmp_path_factory.mktemp("bin")
    for name in ("sh", "awk", "cmp", "mv", "rm", "sleep"):
        (folder / name).symlink_to(busybox)
    return str(folder)


def test_a_nodes_file_is_brought_whole_kept_up_to_date_and_removed(tmp_path: Path, programs: str) -> None:
    manifests, _ = render(BACKEND, parse(BACKEND, {"slices": ["a=fcbb:0:800:ffff:1::/80"]}))
    (container,) = manifests[-1].body["spec"]["template"]["spec"]["containers"]
    *_, script = container["command"]
    *_, probe = container["readinessProbe"]["exec"]["command"]
    folder, target = tmp_path / "slices", tmp_path / "net.d" / "backend-network.conflist"
    target.parent.mkdir()
    fill = next(one["value"] for one in container["env"] if one["name"] == "FILL")
    # A name that a program could take for the number that the other node is called.
    env = {"PATH": programs, "NODE_NAME": "1e3", "FILL": fill, "SLICES": str(folder), "TARGET": str(target)}
    shell = shutil.which("sh", path=programs)
    assert shell

    def ready() -> bool:
        done = subprocess.run([shell, "-c", probe], env=env, check=False, stderr=subprocess.DEVNULL)
        return done.returncode == 0

    bring(folder, given("1000", part=1))
    with subprocess.Popen(
        [shell, "-c", script.replace("sleep 10", "sleep 0.05")],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as copier:
        assert copier.stdout is not None
        too_late = threading.Timer(20, os.killpg, (copier.pid, signal.SIGKILL))
        too_late.start()

        def says(text: str) -> None:
            for line in copier.stdout:  # type: ignore[union-attr]
                if text in line:
                    return
            raise AssertionError(f"it ended without {text}")

        try:
            says("no part of the range is given to 1e3")
            assert not ready()
            for part in (3, 5):
                bring(folder, given("1e3", part=part))
                says("is written")
                (pool,) = json.loads(target.read_text())["plugins"][0]["ipam"]["ranges"]
                assert pool[0]["rangeStart"] == f"fcbb:0:800:ffff:{part}::1"
                assert target.read_text() == file_of(given("1e3", part=part), "1e3")
                assert ready()
            # What is half a ConfigMap's or none changes nothing.
            whole = target.read_text()
            mixed: Object = given("1e3", part=7)
            mixed["data"][TEMPLATE] = given("1e3", part=7, mode="l3")["data"][TEMPLATE]
            none: Object = {"data": {}}
            halves = [{"data": {**mixed["data"], name: ""}} for name in (NODES, TEMPLATE)]
            for config_map in (mixed, none, *halves):
                bring(folder, config_map)
                says("cannot be read")
                assert target.read_text() == whole
                assert not ready()
            # Its part goes, perhaps to another node: so does the file.
            bring(folder, given("1000", part=5))
            says(f"{target} is removed")
            assert not target.exists()
            assert not ready()
            began = time.monotonic()
            copier.terminate()
            assert copier.wait(10) == 0
            assert time.monotonic() - began < 5
        finally:
            too_late.cancel()
            with suppress(ProcessLookupError):
                os.killpg(copier.pid, signal.SIGKILL)
    assert list(target.parent.iterdir()) == []


# What `ip route list dev ens5` of busybox and of iproute2 print.
BUSYBOX_ROUTE = "fcbb:0:800:ffff:2::/80 via fcbb::12 dev ens5  metric 1024 "
ROUTE = "fcbb:0:800:ffff:3::/80 via fcbb::13 proto static metric 1024 pref medium"


@pytest.mark.parametrize(
    ("routes", "is_ready"),
    [
        ([], False),
        ([BUSYBOX_ROUTE], False),
        ([BUSYBOX_ROUTE, ROUTE.replace("via fcbb::13", "via fcbb::12")], False),
        (["fcbb::/64 proto kernel metric 256", BUSYBOX_ROUTE, ROUTE], True),
    ],
)
def test_a_pod_is_ready_once_its_node_has_the_routes(
    tmp_path: Path, programs: str, routes: list[str], is_ready: bool
) -> None:
    slices = [
        f"{name}=fcbb:0:800:ffff:{n}::/80,via=fcbb::1{n}" for n, name in enumerate(("1e3", "1000", "b"), 1)
    ]
    (_, files, daemon), _ = render(BACKEND, parse(BACKEND, {"mode": "l3", "slices": slices}))
    (container,) = daemon.body["spec"]["template"]["spec"]["containers"]
    *_, probe = container["readinessProbe"]["exec"]["command"]
    folder, target, listing = tmp_path / "slices", tmp_path / "file", tmp_path / "routes"
    bring(folder, dict(files.body))
    target.write_text(file_of(dict(files.body), "1e3"))
    listing.write_text("".join(f"{line}\n" for line in routes))
    shell = shutil.which("sh", path=programs)
    # Not a program: busybox would take its own.
    ip = f'ip() {{ [ "$*" != "-6 route list dev ens5" ] || while read -r line; do echo "$line"; done <{listing}; }}'
    env = {one["name"]: one.get("value", "1e3") for one in container["env"]}
    env |= {"PATH": programs, "SLICES": str(folder), "TARGET": str(target)}
    assert shell
    done = subprocess.run([shell, "-c", f"{ip}\n{probe}"], env=env, check=False)
    assert (done.returncode == 0) is is_ready
