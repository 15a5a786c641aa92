"""A cluster that cannot be reached: the place and the reason, each once, and no word of how the client is built.

Real sockets, each of which fails in its own way.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import golden, needs
from tests.unit.api_answers import kubeconfig
from torchnet.errors import ClusterError, TorchnetError
from torchnet.k8s.client import api_client as api_module
from torchnet.k8s.client.access import load
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiCall, ApiUnreachable, failure_reason, parse_refusal
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.run.creation import name_in_use_error

CALLED = 'failed to call webhook: Post "https://hooks.hooks-system.svc:443/x?timeout=10s": connection refused'
Talk = Callable[[socket.socket], None]
Listen = Callable[[Talk | None], int]
# Of the client, of Python and of OpenSSL: nothing that the user could do something with.
INTERNALS = re.compile(
    r"https?connection|pool|errno|object at|_ssl|error\(|exception|max retries|['\"]?\)$", re.I
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "_CONNECT", 0.3)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def listening() -> Iterator[Listen]:
    """Listens at the port that it gives, and talks as it is told to whoever comes; with None to nobody."""
    with contextlib.ExitStack() as stack:

        def listen(talk: Talk | None) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def work() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        with listener.accept()[0] as one, contextlib.suppress(OSError):
                            if talk is not None:
                                talk(one)

            if talk is not None:
                threading.Thread(target=work, daemon=True).start()
            return int(listener.getsockname()[1])

        yield listen


def says(data: bytes) -> Talk:
    def talk(one: socket.socket) -> None:
        one.recv(65536)
        one.sendall(data)

    return talk


def said(tmp_path: Path, address: str) -> str:
    """What is told of a server at ``address``, behind the place and the question."""
    client = ApiClient(load(str(kubeconfig(tmp_path / "config", address))), patience=0.05, timeout=0.3)
    with pytest.raises(ApiUnreachable) as caught:
        client.call("GET", POD.path("ml"), POD.call("list", "ml"))
    assert caught.value.fix == "kubectl cluster-info --context here"
    head = f"no response from {address} (context 'here') (list pods in namespace ml): "
    assert caught.value.text.startswith(head)
    text = caught.value.text.removeprefix(head)
    assert not INTERNALS.search(text), text
    return text


def test_nobody_listens(tmp_path: Path) -> None:
    assert said(tmp_path, "https://127.0.0.1:9") == "connection refused"


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    found = said(tmp_path, "https://no-such-host.invalid:6443")
    assert found == "the name no-such-host.invalid cannot be resolved"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_is_silent(tmp_path: Path, listening: Listen, scheme: str) -> None:
    assert said(tmp_path, f"{scheme}://127.0.0.1:{listening(None)}") == "timed out"


def test_a_connection_that_does_not_come_about(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        assert said(tmp_path, f"https://127.0.0.1:{full.getsockname()[1]}") == "timed out"


@pytest.mark.parametrize(
    ("scheme", "answer", "text"),
    [
        ("http", b"", "the connection was closed without a response"),
        ("http", b"SSH-2.0-OpenSSH_9.2\r\n", "not an HTTP server"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "the response was truncated"),
        ("https", b"HTTP/1.0 400 Bad Request\r\n\r\n", "TLS failed: wrong version number"),
    ],
    ids=str,
)
def test_a_server_that_talks_otherwise(
    tmp_path: Path, listening: Listen, scheme: str, answer: bytes, text: str
) -> None:
    assert said(tmp_path, f"{scheme}://127.0.0.1:{listening(says(answer))}") == text


def test_a_certificate_that_is_not_trusted(tmp_path: Path, listening: Listen) -> None:
    made = [*("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x")]
    made += ["-keyout", "key", "-out", "crt"]
    subprocess.run(
        [needs.program("openssl"), *made], cwd=tmp_path, check=True, capture_output=True, timeout=60
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")

    def talk(one: socket.socket) -> None:
        context.wrap_socket(one, server_side=True).close()

    found = said(tmp_path, f"https://127.0.0.1:{listening(talk)}")
    assert re.fullmatch("its certificate is not trusted: self.signed certificate", found)


@pytest.mark.parametrize(
    ("proxy", "text"),
    [
        ("http://127.0.0.1:9", "the proxy: connection refused"),
        ("http://no-such-proxy.invalid:3128", "the proxy: the name no-such-proxy.invalid cannot be resolved"),
    ],
)
def test_a_proxy_is_named_as_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, text: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert said(tmp_path, "https://api.example.org") == text


def test_a_proxy_that_says_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: Listen) -> None:
    no = says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening(no)}")
    assert said(tmp_path, "https://api.example.org") == "the proxy: Tunnel connection failed: 403 Forbidden"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError("the command has not ended within 10 s"), "the command has not ended within 10 s"),
        (TimeoutError(110, "Connection timed out"), "timed out"),
        (OSError(113, "No route to host"), "no route to host"),
        (ValueError(), "ValueError"),
        (OSError("[Errno 5] x\ny"), "x y"),
    ],
    ids=repr,
)
def test_what_comes_without_the_clients_wrapping(error: Exception, text: str) -> None:
    assert failure_reason(error) == text


@pytest.mark.parametrize(
    ("verb", "resource", "without"),
    [
        ("create", "networkpolicies.networking.k8s.io", "; or launch with --network-policy none"),
        ("create", "services", "; or launch with --static-ips"),
        ("list", "networkpolicies.networking.k8s.io", ""),
        ("create", "secrets", ""),
    ],
)
def test_a_missing_right_that_an_option_makes_unnecessary(verb: str, resource: str, without: str) -> None:
    message = f'{resource} "train" is forbidden: User "eve" cannot {verb} resource "{resource}"'
    error = parse_refusal(ApiCall(verb, resource, "ml"), 403, json.dumps({"message": message}).encode())
    assert error.fix == f"kubectl auth can-i {verb} {resource} -n ml{without}"


def test_the_wording_of_refusals(tmp_path: Path) -> None:
    create, read = POD.call("create", "ml", "train-0"), POD.call("get", "ml", "train-0")
    cases: list[tuple[ApiCall, int, object]] = [
        (read, 401, {"message": "Unauthorized"}),
        (read, 403, {"message": 'pods "train-0" is forbidden: User "eve" cannot get resource "pods"'}),
        (create, 403, {"message": 'pods "train-0" is forbidden: exceeded quota: gpus, requested: gpu=8'}),
        (create, 403, {"message": 'pods "train-0" is forbidden: violates PodSecurity "restricted:latest"'}),
        (
            create,
            403,
            {"message": 'violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'},
        ),
        (
            create,
            422,
            {"message": "ValidatingAdmissionPolicy 'uids' denied request: runAsUser must be above 1000"},
        ),
        (
            create,
            403,
            {"message": "unable to validate against any security context constraint: [restricted-v2]"},
        ),
        (create, 404, {"message": 'namespaces "ml" not found'}),
        (create, 422, {"message": "Pod is invalid: spec.containers: Required value"}),
        (read, 500, "internal"),
        (
            create,
            500,
            {"message": f'Internal error occurred: failed calling webhook "x.example.org": {CALLED}'},
        ),
        (POD.call("list", ""), 403, {"message": 'pods is forbidden: User "eve" cannot list resource "pods"'}),
    ]
    errors: list[TorchnetError] = [
        parse_refusal(call, status, json.dumps(body).encode()) for call, status, body in cases
    ]
    path = tmp_path / "config"
    errors.append(ApiClient(load(str(kubeconfig(path, "https://h")))).unreachable_error(read, TimeoutError()))
    with pytest.raises(ClusterError) as caught:
        load(str(path), "another")
    errors.append(caught.value)
    path.write_text("contexts: 5")
    with pytest.raises(ClusterError) as caught:
        load(str(path))
    errors.append(caught.value)
    errors += [
        name_in_use_error("Job", "ml", "train", {}),
        name_in_use_error("Job", "ml", "train", {"metadata": {"labels": {"torchnet.alt/run": "train"}}}),
    ]
    shown = "\n".join(f"exit code {error.exit_code}: {error}" for error in errors)
    golden.check("k8s-api-errors.txt", shown.replace(str(tmp_path), "HOME"))
