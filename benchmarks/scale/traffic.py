"""What a launcher costs the API server: its requests by the server's own audit log, its bytes by a relay before it."""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import control_plane, kwok, pki
from tests.cluster.places import CONTROL_PLANE, CP_ADDRESS, RUN, namespace_file
from torchnet.linux import namespaces

USER = "launcher"
CONTROLLER = "system:serviceaccount:kube-system:job-controller"
_FILE, _POLICY = RUN / "audit.log", RUN / "audit-policy.json"
_PODS = [{"group": "", "resources": ["pods", "pods/status"]}]
_RULES = [
    {"level": "Metadata", "users": [USER]},
    {"level": "Metadata", "users": [CONTROLLER], "verbs": ["create"], "resources": _PODS},
    {"level": "Metadata", "users": [kwok.USER], "verbs": ["patch"], "resources": _PODS},
    {"level": "None"},
]


@dataclass(frozen=True)
class Request:
    """One request as the API server received it; ``at`` is Unix time, ``what`` such as "watch pods"."""

    at: float
    user: str
    what: str
    name: str


def parse(line: str) -> Request:
    """Parse a line of the audit log (audit.k8s.io/v1)."""
    event: dict[str, Any] = json.loads(line)
    about = event.get("objectRef") or {}
    resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
    stamp = event["requestReceivedTimestamp"]  # with microseconds
    at = calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")) + float(f"0{stamp[19:].rstrip('Z')}")
    what = f"{event['verb']} {resource or event['requestURI'].partition('?')[0]}"
    return Request(at, event["user"]["username"], what, about.get("name") or "")


@dataclass
class AuditLog:
    """The requests so far; each :meth:`read` adds what the API server has written since."""

    requests: list[Request] = field(default_factory=list)
    _offset: int = 0

    def read(self) -> list[Request]:
        """All requests so far."""
        with _FILE.open("rb") as file:
            file.seek(self._offset)
            *lines, rest = file.read().split(b"\n")
            self._offset = file.tell() - len(rest)
        self.requests += [parse(line.decode()) for line in lines]
        return self.requests

    def of(self, user: str, what: str = "", since: float = 0.0, until: float = float("inf")) -> list[Request]:
        """The requests of a user that were received within a time."""
        return [
            one
            for one in self.requests
            if one.user == user and (not what or one.what == what) and since <= one.at < until
        ]


def restart_control_plane() -> None:
    """Let the API server write what launchers ask, which pods the Job controller makes, and which KWOK has started.

    On a busy machine, KWOK renews the leases of its nodes late. Such a node is not lost.
    """
    kind = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
    later = ["ResponseStarted", "ResponseComplete", "Panic"]
    _POLICY.write_text(json.dumps({**kind, "omitStages": later, "rules": _RULES}))
    control_plane.restart_apiserver(
        f"--audit-policy-file={_POLICY}",
        f"--audit-log-path={_FILE}",
        # KWOK watches from version 0, which the API server takes for a streamed list, which etcd 3.4 does not support.
        "--feature-gates=WatchList=false",
    )
    control_plane.restart_controller_manager("--node-monitor-grace-period=300s")


class Relay:
    """Passes connections on to the API server, and counts their bytes, TLS included."""

    def __init__(self) -> None:
        self.sent = self.received = self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()

    def run(self) -> None:
        """In a thread of its own, which moves to the network of the control plane."""
        with namespace_file(CONTROL_PLANE).open() as file:
            namespaces.setns(file.fileno(), namespaces.NEWNET)
        server = self._loop.run_until_complete(asyncio.start_server(self._connect, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads here, for an administrator whom the audit log knows."""
        path = folder / "relay.kubeconfig"
        pki.certificate(USER, f"/O=system:masters/CN={USER}")
        pki.kubeconfig(USER, path)
        path.write_text(path.read_text().replace(f"https://{CP_ADDRESS}", f"https://127.0.0.1:{self.port}"))
        return path

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def wait(self) -> None:
        assert self._ready.wait(10)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection(CP_ADDRESS, 443)
        await asyncio.gather(self._pass(reader, questions, "sent"), self._pass(answers, writer, "received"))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: str) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                setattr(self, count, getattr(self, count) + len(data))
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.contextmanager
def relay() -> Iterator[Relay]:
    """Open until the end of the block."""
    made = Relay()
    thread = threading.Thread(target=made.run, name="relay", daemon=True)
    thread.start()
    made.wait()
    try:
        yield made
    finally:
        made.stop()
        thread.join(10)
