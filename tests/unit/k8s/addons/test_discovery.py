"""How the example's pods find each other: net.py against a real API's shape, over TLS."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.unit.net_script import INTERFACE, NETWORK, OWN, Net, net_in

STATUS = "k8s.v1.cni.cncf.io/network-status"
PRIMARY = {"name": "cilium", "interface": "eth0", "ips": ["10.0.0.9"], "default": True, "gateway": ["<nil>"]}
ME = socket.gethostname()


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
    needs.program("openssl")
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


net = pytest.fixture(net_in)


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
    # Found at the second time, after the 500, and not asked for again while the other is waited for.
    assert [path.rpartition("/")[2] for path, _, _ in api.asked].count(ME) == 2
    assert len(api.asked) > 4


@pytest.mark.parametrize("code", [401, 403])
def test_discovery_ends_soon_where_it_has_no_right(api: Api, net: Net, code: int) -> None:
    api.codes = [code] * 100
    began = time.monotonic()
    ran = net("discover", "first", port=api.port, patience=1.5)
    assert ran.returncode == 1
    assert re.fullmatch(rf"the API server denies access to the pod first: HTTP Error {code}.*\n", ran.stderr)
    assert time.monotonic() - began > 1.5
    assert 2 <= len(api.asked) <= 3


def test_discovery_waits_for_a_role_that_came_just_before_the_pods(api: Api, net: Net) -> None:
    """Two refusals, an answer, and later another refusal: none lasts as long as the patience."""
    api.codes = [401, 403, 200, 403]
    api.pods = {ME: []}
    timer = threading.Timer(2.5, lambda: api.pods.update({ME: [entry(OWN)]}))
    timer.start()
    ran = net("discover", ME, port=api.port, patience=2.5)
    timer.join()
    assert (ran.returncode, ran.stdout) == (0, f"{ME} has {OWN}\n"), ran.stderr
    assert len(api.asked) == 5


def test_discovery_gives_up_after_its_deadline_and_names_who_is_missing(api: Api, net: Net) -> None:
    api.pods = {ME: [entry(OWN)], "none": [PRIMARY]}
    ran = net("discover", "none", ME, "gone", port=api.port, limit=1)
    assert (ran.returncode, ran.stderr) == (1, f"no address on {NETWORK} after 1 s: none, gone\n")


@pytest.mark.parametrize(
    ("mine", "other", "said"),
    [
        (OWN, OWN, "two pods have the same address"),
        ("fcbb::8", "fcbb::7", "network-status has fcbb::8, but lo does not"),
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
