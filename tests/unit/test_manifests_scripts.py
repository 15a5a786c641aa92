"""The scripts that the manifests carry: run as they are, against a real API's shape, a real shell, real sockets."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from torchnet.manifests import example
from torchnet.manifests.flags import parse
from torchnet.manifests.options import BACKEND, EXAMPLE, MULTUS, WHEREABOUTS
from torchnet.manifests.render import render

FOLDER = Path(example.__file__).parent / "example"
STATUS = "k8s.v1.cni.cncf.io/network-status"
# The loopback interface stands for net1: its address is ::1 on every machine.
NETWORK, INTERFACE, OWN = "ml/backend-network", "lo", "::1"
PRIMARY = {"name": "cilium", "interface": "eth0", "ips": ["10.0.0.9"], "default": True, "gateway": ["<nil>"]}


@dataclass
class Api:
    """What an API server answers for pods, over TLS with a certificate of its own, and what it was asked."""

    pods: dict[str, Any] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """Serves pods' metadata at 127.0.0.1; leaves what a service account's folder holds in tmp_path."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the server's certificate, and is missing")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=api",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.crt"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "token").write_text("secret-token")
    (tmp_path / "namespace").write_text("ml")
    state = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers["Authorization"], self.headers["Accept"]))
            name = self.path.rpartition("/")[2]
            code = state.codes.pop(0) if state.codes else 200 if name in state.pods else 404
            self.send_response(code)
            self.end_headers()
            annotations = {STATUS: json.dumps(state.pods.get(name))} if state.pods.get(name) else {}
            self.wfile.write(json.dumps({"metadata": {"name": name, "annotations": annotations}}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def entry(*ips: str, name: str = NETWORK, interface: str = INTERFACE) -> dict[str, Any]:
    return {"name": name, "interface": interface, "ips": list(ips), "mac": "02:00:00:00:00:01"}


@pytest.fixture
def net(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``net("show")``: net.py in this machine's network, with what the pod gives it."""

    def run(*words: str, port: int = 0, limit: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        text = (FOLDER / "net.py").read_text().replace("DEADLINE = 300", f"DEADLINE = {limit}")
        (tmp_path / "net.py").write_text(text)
        variables = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(port),
            "NETWORK": NETWORK,
            "INTERFACE": INTERFACE,
            "TOKEN_FOLDER": str(tmp_path),
            "JOB_FOLDER": str(tmp_path),
        }
        return subprocess.run(
            [sys.executable, str(tmp_path / "net.py"), *words],
            env={**os.environ, **variables, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


Net = Callable[..., "subprocess.CompletedProcess[str]"]
ME = socket.gethostname()


def test_discovery_writes_the_master_and_a_hosts_file(api: Api, net: Net, tmp_path: Path) -> None:
    api.pods = {
        "first": [entry("fcbb::9", name="ml/other"), PRIMARY, entry("fcbb::7")],
        ME: [PRIMARY, entry("fcbb::8", interface="net2"), entry(OWN)],
    }
    ran = net("discover", "first", ME, port=api.port)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["first has fcbb::7", f"{ME} has {OWN}"]
    assert (tmp_path / "master").read_text() == "fcbb::7"
    hosts = (tmp_path / "hosts").read_text()
    assert hosts == Path("/etc/hosts").read_text() + f"fcbb::7\tfirst-lo\n{OWN}\t{ME}-lo\n"
    assert api.asked[0] == (
        "/api/v1/namespaces/ml/pods/first",
        "Bearer secret-token",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    )


def test_discovery_waits_for_pods_that_are_late_and_for_a_server_that_is_ill(api: Api, net: Net) -> None:
    api.codes = [404, 500, 429]
    api.pods = {ME: [entry(OWN)], "late": []}
    timer = threading.Timer(1.5, lambda: api.pods.update(late=[entry("fcbb::7")]))
    timer.start()
    ran = net("discover", "late", ME, port=api.port)
    timer.join()
    assert ran.returncode == 0, ran.stderr
    # Who is found is not asked for again.
    assert [path.rpartition("/")[2] for path, _, _ in api.asked].count(ME) < len(api.asked) - 1


@pytest.mark.parametrize("code", [401, 403])
def test_discovery_ends_at_once_where_it_has_no_right(api: Api, net: Net, code: int) -> None:
    api.codes = [code]
    ran = net("discover", "first", port=api.port)
    assert ran.returncode == 1
    assert re.fullmatch(rf"the API server refuses to show the pod first: HTTP Error {code}.*\n", ran.stderr)
    assert len(api.asked) == 1


def test_discovery_gives_up_after_its_deadline_and_names_who_is_missing(api: Api, net: Net) -> None:
    api.pods = {ME: [entry(OWN)], "none": [PRIMARY]}
    ran = net("discover", "none", ME, "gone", port=api.port, limit=1)
    assert (ran.returncode, ran.stderr) == (1, f"no address on {NETWORK} after 1 s: none, gone\n")


@pytest.mark.parametrize(
    ("mine", "other", "said"),
    [
        (OWN, OWN, "two pods have one address"),
        ("fcbb::8", "fcbb::7", "network-status says fcbb::8, and lo does not have it"),
    ],
)
def test_discovery_refuses_addresses_that_cannot_be(
    api: Api, net: Net, mine: str, other: str, said: str
) -> None:
    api.pods = {ME: [entry(mine)], "other": [entry(other)]}
    ran = net("discover", "other", ME, port=api.port)
    assert ran.returncode == 1
    assert said in ran.stderr


def test_another_authority_is_not_trusted(api: Api, net: Net, tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=other",
         "-keyout", os.devnull, "-out", "ca.crt"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    api.pods = {ME: [entry(OWN)]}
    ran = net("discover", ME, port=api.port, limit=0)
    assert ran.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in ran.stdout
    assert api.asked == []


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
