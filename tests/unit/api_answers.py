"""A real HTTP server that answers as it is told to, in an API server's stead, and a kubeconfig that names it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from torchnet.k8s.client.access import load
from torchnet.k8s.client.api_client import ApiClient

_CLOCK = time.time
Answer = tuple[int, dict[str, str], Any]


class Server:
    """Answers with ``answers`` in turn, the last one for ever; keeps what was asked.

    Status 0 is a connection that is cut without an answer; a Content-Length beyond the body's is an answer that is cut.
    A body that is an iterator of bytes is sent in chunks, as they come.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = [(200, {}, {})]
        self.asked: list[tuple[float, str, str, dict[str, str]]] = []
        self.request = threading.local()  # .headers: those of the request that this thread answers
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                said = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.request.headers = dict(self.headers)
                outer.asked.append((time.monotonic(), self.command, self.path, dict(self.headers)))
                status, headers, body = outer.answer(self.command, self.path, said)
                if status == 0:
                    self.close_connection = True
                    return
                if isinstance(body, Iterator):
                    self._stream(status, body)
                    return
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = int(headers.get("Content-Length") or 0) > len(data)

            def _stream(self, status: int, chunks: Iterator[bytes]) -> None:
                self.send_response(status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for chunk in chunks:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815

            def date_time_string(self, timestamp: float | None = None) -> str:
                """By the machine's clock, whatever a test makes of the launcher's."""
                return super().date_time_string(int(_CLOCK()) if timestamp is None else int(timestamp))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, method: str, path: str, said: bytes) -> Answer:
        return self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def serving() -> Iterator[Server]:
    """For a fixture."""
    made = Server()
    yield made
    made.close()


def kubeconfig(
    path: Path, server: str, *, name: str = "here", current: str | None = None, **user: Any
) -> Path:
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current if current is not None else name,
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": user or {"token": "t0ken"}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-of-{name}"}}
        ],
    }
    path.write_text(json.dumps(body))
    return path


def client(server: Server, tmp_path: Path, patience: float = 1.0) -> ApiClient:
    """The launcher's way to it; as it is, for a fixture."""
    return ApiClient(load(str(kubeconfig(tmp_path / "config", server.address))), patience=patience)
