"""A command in a container: how it ended, who forbids it, and servers that say nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import door, kubeconfig
from tests.unit.api_store import Store, refusal, storing
from torchnet.errors import ClusterError
from torchnet.k8s.client import exec as executing
from torchnet.k8s.client.access import load
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.exec import execute
from torchnet.k8s.run import stop as hurrying
from torchnet.k8s.run.stop import hurry

store = pytest.fixture(storing)
SUCCESS = {"metadata": {}, "status": "Success"}
FAILURE = {"status": "Failure", "message": "command terminated with non-zero exit code: exit status 1"}


class Kubelet:
    """Speaks a websocket as an API server does for exec: takes the command, tells how it ended (None: says nothing)."""

    def __init__(self, ended: dict[str, Any] | None, *, upgrades: bool = True) -> None:
        self.asked: list[str] = []
        self._ended, self._upgrades = ended, upgrades
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._open.append(connection)
            if self._upgrades:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            if not part:
                return
            head += part
        self.asked.append(head.decode().splitlines()[0])
        key = re.findall(r"(?i)sec-websocket-key: (\S+)", head.decode())[0]
        told = base64.b64encode(
            hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        ).decode()
        connection.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {told}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        if self._ended is not None:
            body = b"\x03" + json.dumps(self._ended).encode()
            connection.sendall(bytes([0x82, len(body)]) + body + bytes([0x88, 2, 3, 232]))

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        for connection in self._open:
            connection.close()


@pytest.fixture
def kubelets() -> Iterator[list[Kubelet]]:
    made: list[Kubelet] = []
    yield made
    for one in made:
        one.close()


def reach(kubelet: Kubelet, kubelets: list[Kubelet], folder: Path) -> ApiClient:
    kubelets.append(kubelet)
    return ApiClient(load(str(kubeconfig(folder / "config", kubelet.address))))


def test_a_command_that_ends_well(kubelets: list[Kubelet], tmp_path: Path) -> None:
    kubelet = Kubelet(SUCCESS)
    execute(reach(kubelet, kubelets, tmp_path), "ml", "run-0", "worker", ("echo", "a b"))
    assert kubelet.asked == [
        "GET /api/v1/namespaces/ml/pods/run-0/exec?container=worker&stderr=true&command=echo&command=a+b HTTP/1.1"
    ]


def test_a_command_that_fails_is_told(kubelets: list[Kubelet], tmp_path: Path) -> None:
    one = reach(Kubelet(FAILURE), kubelets, tmp_path)
    with pytest.raises(
        ClusterError, match="run-0: command terminated with non-zero exit code: exit status 1"
    ):
        execute(one, "ml", "run-0", "worker", ("false",))
    assert "exit status 1" in hurry(one, "ml", ["run-0", "run-1"])


def test_a_command_that_does_not_end(
    kubelets: list[Kubelet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executing, "_SECONDS", 0.5)
    one = reach(Kubelet(None), kubelets, tmp_path)
    with pytest.raises(ApiUnreachable, match="has not ended within 0.5 s"):
        execute(one, "ml", "run-0", "worker", ("true",))


def test_a_server_that_says_nothing(
    kubelets: list[Kubelet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hurrying, "_SECONDS", 0.5)
    one = reach(Kubelet(None, upgrades=False), kubelets, tmp_path)
    began = time.monotonic()
    assert hurry(one, "ml", ["run-0"]) == "no answer from some within 0.5 s"
    assert time.monotonic() - began < 5


def test_who_may_not_is_told_which_right_is_missing(store: Store, tmp_path: Path) -> None:
    said = 'pods "run-0" is forbidden: User "u" cannot get resource "pods/exec" in API group "" in the namespace "ml"'
    store.faults = [("GET", "/exec", refusal(403, "Forbidden", said))]
    one = door(store, tmp_path)
    with pytest.raises(ApiRefusal) as caught:
        execute(one, "ml", "run-0", "worker", ("true",))
    assert caught.value.status == 403
    assert "kubectl auth can-i get pods/exec -n ml" in str(caught.value)
    assert "get pods/exec" in hurry(one, "ml", ["run-0"])


def test_a_pod_that_has_gone_is_no_problem_and_a_node_that_is_not_reached_is_one(
    store: Store, tmp_path: Path
) -> None:
    unreached = refusal(500, "InternalError", "dial tcp 10.0.0.1:10250: no route")
    store.faults = [
        ("GET", "run-0/exec", refusal(404, "NotFound", "no pod")),
        ("GET", "run-1/exec", unreached),
    ]
    one = door(store, tmp_path)
    assert hurry(one, "ml", ["run-0"]) == ""
    assert "no route" in hurry(one, "ml", ["run-0", "run-1"])


def test_a_program_ends_though_nobody_answers(kubelets: list[Kubelet], tmp_path: Path) -> None:
    """The launcher goes on to its end, and that is one, whatever still waits for a node."""
    kubelet = Kubelet(None, upgrades=False)
    reach(kubelet, kubelets, tmp_path)
    code = (
        "import threading, time\n"
        "from torchnet.k8s.client.api import connect\n"
        "from torchnet.k8s.run.stop import hurry\n"
        f"door = connect({str(tmp_path / 'config')!r})\n"
        "threading.Thread(target=hurry, args=(door, 'ml', ['a', 'b']), daemon=True).start()\n"
        "time.sleep(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=8)
    assert len(kubelet._open) == 2, "both were asked"
