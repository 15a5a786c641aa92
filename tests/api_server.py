"""An API server for tests: real HTTPS, pods in memory, what Kubernetes answers to a pod that asks for pods.

It is held against the real one by tests/api_contract.py, which runs on both.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests import needs

ONE = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
WHOLE = "application/json"
GOOD, FORBIDDEN = "a-good-token", "a-token-without-rights"

# A request's path and its number; what it returns, if anything, is sent instead: (status, headers, body).
Fault = Callable[[str, int], "tuple[int, dict[str, str], bytes] | None"]


@dataclass
class ApiPods:
    """What the server knows and has seen."""

    pods: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # "GET /api/v1/…"
    connections: int = 0
    fault: Fault | None = None
    tokens: dict[str, bool] = field(default_factory=lambda: {GOOD: True, FORBIDDEN: False})


class Server:
    """Serves ``with Server(folder) as server`` on ``host``; ``server.account(token)`` makes a pod's folder."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.state = ApiPods()
        self._folder = folder
        certificate(folder, host)
        handler = type("Handler", (_Handler,), {"state": self.state})
        kind = type("Http", (_Http,), {"address_family": 10 if ":" in host else 2})
        self._http = kind((host, 0), handler)
        self._http.state = self.state
        context = SSLContext(PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._http.context = context
        self.host, self.port = host, self._http.server_address[1]

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def account(self, token: str = GOOD, namespace: str = "ml") -> Path:
        """The folder of a service account with this token."""
        place = self._folder / f"account-{token}"
        place.mkdir(exist_ok=True)
        (place / "token").write_text(token + "\n")
        (place / "namespace").write_text(namespace)
        (place / "ca.crt").write_bytes((self._folder / "ca.crt").read_bytes())
        return place

    def put(
        self,
        namespace: str,
        name: str,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        *,
        phase: str = "Running",
        address: str = "",
        ending: bool = False,
        created: str = "2026-01-01T00:00:00Z",
    ) -> None:
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
        metadata |= {"labels": labels or {}, "annotations": annotations or {}, "creationTimestamp": created}
        if ending:
            metadata["deletionTimestamp"] = created
        self.state.pods[namespace, name] = {
            "metadata": metadata,
            "status": {"phase": phase, "podIP": address},
            "spec": {"containers": ["x" * 5000]},
        }


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    state: ApiPods
    context: SSLContext

    def get_request(self) -> Any:
        sock, address = super().get_request()
        self.state.connections += 1
        sock.settimeout(10)
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *_: object) -> None:
        pass  # clients that go away are what some tests are about


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ApiPods

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        state.asked.append(f"GET {self.path}")
        planted = state.fault(self.path, len(state.asked)) if state.fault else None
        if planted is not None:
            self._send(*planted)
            return
        status, value = self._answer()
        self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _answer(self) -> tuple[int, dict[str, Any]]:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if len(parts) not in (5, 6) or parts[:3] != ["api", "v1", "namespaces"] or parts[4] != "pods":
            return 404, _failure(404, "NotFound", "the server could not find the requested resource")
        namespace, name = parts[3], parts[5] if len(parts) == 6 else ""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.state.tokens:
            return 401, _failure(401, "Unauthorized", "Unauthorized")
        if not self.state.tokens[token]:
            verb = "get" if name else "list"
            text = f'pods "{name}" is forbidden: User "u" cannot {verb} resource "pods"'
            return 403, _failure(403, "Forbidden", text)
        whole = self.headers.get("Accept") == WHOLE
        if not whole and self.headers.get("Accept") != (ONE if name else LIST):
            return 406, _failure(406, "NotAcceptable", "only the following media types are accepted: …")
        if name:
            pod = self.state.pods.get((namespace, name))
            return (
                (200, pod if whole else _meta(pod))
                if pod
                else (404, _failure(404, "NotFound", f'pods "{name}" not found'))
            )
        query = parse_qs(url.query)
        labels, fields = (query.get(key, [""])[0] for key in ("labelSelector", "fieldSelector"))
        items = [
            pod if whole else _meta(pod)
            for (place, _), pod in sorted(self.state.pods.items())
            if place == namespace and _labelled(pod, labels) and _fielded(pod, fields)
        ]
        return 200, {
            "kind": "PodList" if whole else "PartialObjectMetadataList",
            "apiVersion": "v1" if whole else "meta.k8s.io/v1",
            "items": items or None,
        }

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def certificate(folder: Path, host: str) -> None:
    """An authority's certificate and one for ``host``, without the extensions that Python 3.13 would insist on."""

    needs.program("openssl")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", "-new", *key, "-subj", "/CN=api", "-keyout", "server.key", "-out", "server.csr")
    (folder / "ext").write_text(f"subjectAltName=IP:{host}\n")
    sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext")
    openssl("x509", "-req", "-in", "server.csr", "-days", "2", "-out", "server.crt", *sign)


def _meta(pod: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": pod["metadata"]}


def _failure(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


def _labelled(pod: dict[str, Any], selector: str) -> bool:
    pairs = [part.partition("=") for part in selector.split(",") if part]
    return all(pod["metadata"]["labels"].get(name) == value for name, _, value in pairs)


def _fielded(pod: dict[str, Any], selector: str) -> bool:
    known = {"status.phase": pod["status"]["phase"], "status.podIP": pod["status"]["podIP"]}
    for part in filter(None, selector.split(",")):
        name, sign, value = part.partition("!=") if "!=" in part else part.partition("=")
        if (known[name] == value) == (sign == "!="):
            return False
    return True
