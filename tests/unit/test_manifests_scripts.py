"""The scripts that the manifests carry: run as they are, with real sockets and in a real shell."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.net_script import FOLDER, OWN, Net, net_in
from torchnet.manifests.flags import parse
from torchnet.manifests.options import BACKEND, EXAMPLE, MULTUS, WHEREABOUTS
from torchnet.manifests.render import render

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
    assert f"{OWN} is not reached over {others[0]}: packets to it leave from ::1" in ran.stderr


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
    assert "no answer from ::1 to a packet of 65535 bytes from ::1" in ran.stderr


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


def test_a_nodes_file_is_brought_whole_and_brought_up_to_date(tmp_path: Path) -> None:
    manifests, _ = render(BACKEND, parse(BACKEND, {"slices": ["a=fcbb:0:800:ffff:1::/80"]}))
    (container,) = manifests[-1].body["spec"]["template"]["spec"]["containers"]
    *_, script = container["command"]
    *_, ready = container["readinessProbe"]["exec"]["command"]
    source, target = tmp_path / "source", tmp_path / "backend-network.conflist"
    env = {**os.environ, "NODE_NAME": "a", "SOURCE": str(source), "TARGET": str(target)}
    with subprocess.Popen(
        ["sh", "-c", script.replace("sleep 10", "sleep 0.05")],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as copier:
        assert copier.stdout is not None
        try:
            assert copier.stdout.readline() == "no part of the range is given to a\n"
            assert subprocess.run(["sh", "-c", ready], env=env, check=False).returncode != 0
            for text in ("one\n", "two\n"):
                source.write_text(text)
                while "written" not in copier.stdout.readline():
                    pass
                assert target.read_text() == text
                assert subprocess.run(["sh", "-c", ready], env=env, check=False).returncode == 0
            began = time.monotonic()
            copier.terminate()
            assert copier.wait(10) == 0
            assert time.monotonic() - began < 5
        finally:
            with suppress(ProcessLookupError):
                os.killpg(copier.pid, signal.SIGKILL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backend-network.conflist", "source"]
