"""torchrun without the seconds that importing PyTorch takes: a process that has imported it forks for each line.

The fork does what ``python -m torch.distributed.run`` does: it has the line's words, variables, folder and streams, and
its own signals. It is not a child of the tests, so its PID and then its exit status come through a pipe.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
RUN = "torch.distributed.run"
_LONGEST = 1 << 18
_STREAMS = ("stdin", "stdout", "stderr")


class Torchrun:
    """A line that runs, with the part of `subprocess.Popen` that `tests.jobs.Job` needs."""

    def __init__(self, end: IO[str], streams: Mapping[str, IO[bytes] | None]) -> None:
        self._end = end
        self._lock = threading.Lock()
        self.pid = int(end.readline())
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = (streams[name] for name in _STREAMS)

    def poll(self) -> int | None:
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("torchrun", timeout or 0.0)
        return code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _read(self, seconds: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._end], [], [], seconds)[0]:
                self.returncode = int(self._end.readline() or "-9")
                self._end.close()
            return self.returncode


class TorchrunServer:
    """Starts lines of torchrun; ``with`` ends it, and them."""

    def __enter__(self) -> TorchrunServer:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        words = (sys.executable, "-m", "tests.torchrun_server", str(theirs.fileno()))
        self._process = subprocess.Popen(words, cwd=ROOT, pass_fds=(theirs.fileno(),))
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait(20)

    def popen(self, *words: str, env: Mapping[str, str], cwd: os.PathLike[str], **streams: Any) -> Torchrun:
        """Start a line; ``streams`` as for `subprocess.Popen`."""
        ours: dict[str, IO[bytes] | None] = dict.fromkeys(_STREAMS)
        theirs: dict[str, int] = {}
        for name in _STREAMS:
            given = streams[name]
            if given == subprocess.PIPE:
                read, theirs[name] = os.pipe()
                ours[name] = os.fdopen(read, "rb", buffering=0)
            elif given == subprocess.DEVNULL:
                theirs[name] = os.open(os.devnull, os.O_RDWR)
            else:
                theirs[name] = os.dup(given if isinstance(given, int) else given.fileno())
        end, report = os.pipe()
        message = json.dumps({"words": words, "env": dict(env), "cwd": os.fspath(cwd)}).encode()
        try:
            socket.send_fds(self._socket, [message], [*theirs.values(), report])
        finally:
            for descriptor in (*theirs.values(), report):
                os.close(descriptor)
        return Torchrun(os.fdopen(end), ours)


def _serve(channel: socket.socket) -> None:
    """Start what is asked for, and report ends, until the other end of the channel is closed."""
    importlib.import_module(RUN)  # before any fork
    running: dict[int, tuple[int, int]] = {}  # by pidfd: the PID, and where its end is reported
    server = os.getpid()
    while True:
        waiting = [channel.fileno(), *running]
        for descriptor in select.select(waiting, [], [])[0]:
            if descriptor != channel.fileno():
                pid, report = running.pop(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):
                    os.write(report, f"{code}\n".encode())
                os.close(report)
                os.close(descriptor)
                continue
            data, descriptors, _, _ = socket.recv_fds(channel, _LONGEST, 4)
            if not data:
                return
            *streams, report = descriptors
            pid = os.fork()
            if pid == 0:
                _become_torchrun(server, channel, json.loads(data), streams)
            os.write(report, f"{pid}\n".encode())
            for stream in streams:
                os.close(stream)
            running[os.pidfd_open(pid)] = pid, report


def _become_torchrun(
    server: int, channel: socket.socket, asked: dict[str, Any], streams: list[int]
) -> NoReturn:
    from torchnet.linux import namespaces

    code = 1
    try:
        namespaces.die_with_parent(signal.SIGKILL, server)
        channel.close()
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.closerange(3, 1 << 10)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        run = sys.modules[RUN]
        sys.argv = [str(run.__file__), *asked["words"]]
        run.main(asked["words"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as one:
        _serve(one)
