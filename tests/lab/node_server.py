"""Runs on a node, as its first process: commands for the lab, each over a connection of its own.

A request is a line of JSON: ``argv`` with ``env``, ``input`` and ``timeout``, or ``path`` and ``text`` of a file to
write. The response is one, too. A command ends when its connection does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import socketserver
import subprocess
import threading
from pathlib import Path
from typing import Any

PORT = 7000


def run(request: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
    """The command's exit code and output; it is killed after ``timeout`` seconds, or if nobody waits for it."""
    with subprocess.Popen(
        request["argv"],
        env=os.environ | request.get("env", {}),
        cwd=request.get("cwd", "/tmp"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        ended = threading.Event()

        def watch() -> None:
            readable, _, _ = select.select([connection], [], [], request.get("timeout", 60))
            if not ended.is_set() and (not readable or connection.recv(1) == b""):
                os.killpg(process.pid, signal.SIGKILL)

        threading.Thread(target=watch, daemon=True).start()
        out, err = process.communicate(request.get("input"))
        ended.set()
    return {"code": process.returncode, "stdout": out, "stderr": err}


def write(request: dict[str, Any]) -> dict[str, Any]:
    path = Path(request["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(request["text"])
    path.chmod(request.get("mode", 0o644))
    return {"code": 0, "stdout": "", "stderr": ""}


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:
            return
        request = json.loads(line)
        try:
            response = write(request) if "path" in request else run(request, self.connection)
        except OSError as error:
            response = {"code": 127, "stdout": "", "stderr": f"{request.get('argv')}: {error}"}
        self.wfile.write(json.dumps(response).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    with Server(("", PORT), Handler) as server:
        server.serve_forever()
