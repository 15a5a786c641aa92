"""Runs on a node, as its first process: commands for the lab, each over a connection of its own.

A request is a line of JSON: ``argv`` with ``env``, ``input`` and ``timeout``, or ``path`` and ``text`` of a file to
write. With ``pod`` and ``binds``, it is the agent's Python that runs ``argv`` there. The response is one, too. A
command ends when its connection does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.lab import preloaded

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


def fork(request: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
    """The same for a fork of the Python that has the agent, in a pod's network."""
    asked = {name: request[name] for name in ("argv", "cwd", "pod", "binds")}
    asked["env"] = os.environ | request["env"]
    with (
        open(os.devnull) as nothing,
        tempfile.TemporaryFile("w+", errors="replace") as out,
        tempfile.TemporaryFile("w+", errors="replace") as err,
        preloaded.ask("agent", asked, [one.fileno() for one in (nothing, out, err)]) as answer,
    ):
        readable, _, _ = select.select([answer, connection], [], [], request["timeout"])
        code = preloaded.code_of(answer) if answer in readable else 128 + signal.SIGKILL
        out.seek(0)
        err.seek(0)
        return {"code": code, "stdout": out.read(), "stderr": err.read()}


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
            if "path" in request:
                response = write(request)
            else:
                response = (fork if "pod" in request else run)(request, self.connection)
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
