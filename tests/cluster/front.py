"""A front before the API server, for a launcher of a test: it counts what is asked, and has bad days.

HTTPS with the API server's own certificate, in the network of the control plane, where launchers are. Who comes without
a token is the administrator behind it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal

from tests.cluster.cluster import Cluster
from tests.cluster.pki import PKI
from tests.cluster.places import CONTROL_PLANE, CP_ADDRESS, namespace_file
from torchnet.linux import namespaces

# A status; the connection cut before the question gets through; cut in the middle of the answer.
Fault = int | Literal["unheard", "broken"]
_PASSED_ON = ("Content-Type", "Retry-After", "Date", "Warning")
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Question:
    """``at`` is monotonic; ``streams``: a watch, or a log that is followed."""

    at: float
    method: str
    path: str
    streams: bool
    fault: Fault | None = None


class Front:
    """``bad`` decides what becomes of a question: None lets it through. ``retry_after``: seconds, told with 429."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.bad: Callable[[Question], Fault | None] = lambda _: None
        self.retry_after = 1
        self.questions: list[Question] = []
        self.answers: Counter[int] = Counter()  # by their status; those of the server behind
        self.kubeconfig = folder / "front.kubeconfig"
        self._cluster = cluster
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server: _Server | None = None

    def cut(self) -> None:
        """Reset all connections that are open."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def decide(self, question: Question) -> Fault | None:
        with self._lock:
            fault = self.bad(question)
            self.questions.append(Question(**{**vars(question), "fault": fault}))
        return fault

    @contextlib.contextmanager
    def opened(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def serve(self, ready: threading.Event) -> None:
        """In a thread of its own: it alone, and those that it starts, move to the control plane's network."""
        with namespace_file(CONTROL_PLANE).open() as file:
            namespaces.setns(file.fileno(), namespaces.NEWNET)
        self._server = _Server(self)
        ready.set()
        self._server.serve_forever(poll_interval=0.05)
        self._server.server_close()

    def told(self, token: str = "") -> str:
        """The path of a kubeconfig that leads here, for the holder of this token, or for the administrator."""
        assert self._server is not None
        view = self._cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json")
        config: dict[str, Any] = json.loads(view)
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self._server.server_address[1]}"
        config["users"][0]["user"] = {"token": token} if token else {}
        self.kubeconfig.write_text(json.dumps(config))
        return str(self.kubeconfig)

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self.cut()


@contextlib.contextmanager
def front(cluster: Cluster, folder: Path) -> Iterator[Front]:
    """Open until the end of the block."""
    made, ready = Front(cluster, folder), threading.Event()
    thread = threading.Thread(target=made.serve, args=(ready,), name="front", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield made
    finally:
        made.stop()
        thread.join(20)
        assert not thread.is_alive()


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 64
    allow_reuse_address = True

    def __init__(self, made: Front) -> None:
        self.front = made
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(PKI / "apiserver.crt", PKI / "apiserver.key")
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        # Greeted in the connection's own thread.
        wrapped = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return wrapped, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # whoever asked has gone, or was cut off


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle(self) -> None:
        with self.server.front.opened(self.connection):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        streams = "watch=true" in query or "follow=true" in query
        fault = self.server.front.decide(Question(time.monotonic(), self.command, path, streams))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if isinstance(fault, int):
            self._say(fault)
        elif fault == "unheard":
            self._reset()
        else:
            self._pass_on(body, breaks=fault == "broken")

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _say(self, status: int) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
        data = json.dumps(body | {"message": f"a bad day: {status}"}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", str(self.server.front.retry_after))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _pass_on(self, body: bytes, *, breaks: bool) -> None:
        context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if "Authorization" not in self.headers:
            context.load_cert_chain(PKI / "admin.crt", PKI / "admin.key")
        behind = http.client.HTTPSConnection(CP_ADDRESS, 443, context=context)
        try:
            behind.connect()
            with self.server.front.opened(behind.sock):
                kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                behind.request(self.command, self.path, body or None, kept)
                self._answer(behind.getresponse(), breaks=breaks)
        except (OSError, http.client.HTTPException):
            self._reset()  # as the API server's own connections break
        finally:
            behind.close()

    def _answer(self, response: http.client.HTTPResponse, *, breaks: bool) -> None:
        self.server.front.answers[response.status] += 1
        self.send_response(response.status)
        for name in _PASSED_ON:
            if name in response.headers:
                self.send_header(name, response.headers[name])
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while data := response.read1(1 << 16):
            if breaks:
                half = data[: len(data) // 2]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
                # A reset would take back what has not been read yet.
                time.sleep(0.2)
                return self._reset()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if response.length:  # cut off behind
            return self._reset()
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.shutdown(socket.SHUT_RDWR)
