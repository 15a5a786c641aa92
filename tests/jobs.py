"""Jobs as people run them: started, listened to, signalled, and looked at from outside while they run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import needs
from tests.schema import errors

ROOT = Path(__file__).resolve().parent.parent
TORCHNET = (sys.executable, "-m", "torchnet")
PATIENCE = 60  # seconds for what has no documented deadline: the machine may be busy with other things
SLOW = 0.25  # seconds between two looks that take processor time from what they wait for
_CHUNK = 1 << 16

# A shell starts what runs in its background with SIGINT ignored; torchnet would respect that, and these tests send it.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


@dataclass(frozen=True)
class Ended:
    """How a job ended: its code, what it printed (bytes as UTF-8, others escaped), and when (monotonic)."""

    code: int
    stdout: str
    stderr: str
    at: float


class Job:
    """A command in the background; ``with`` ends it in any case.

    By default ``torchnet launch ARGUMENTS…``. ``popen``: what starts it, ``User.popen`` for an ordinary user.
    ``read``: whether its streams are read; a test of a slow reader does that itself.
    """

    def __init__(
        self,
        *arguments: object,
        command: Sequence[str] = (*TORCHNET, "launch"),
        env: dict[str, str] | None = None,
        popen: Any = None,
        read: bool = True,
        **options: Any,
    ) -> None:
        if popen is None:
            env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
            options["args"] = [*command, *map(str, arguments)]
            self.process = subprocess.Popen(**self._pipes(options), env=env)
        else:
            self.process = popen(*command, *map(str, arguments), env=env, **self._pipes(options))
        self._text = {"stdout": bytearray(), "stderr": bytearray()}
        self._times: dict[str, list[tuple[int, float]]] = {"stdout": [], "stderr": []}
        self._news = threading.Condition()
        self._readers: list[threading.Thread] = []
        for name in ("stdout", "stderr"):
            file = getattr(self.process, name)
            if file is not None and read:
                self.listen(name, file.fileno())

    @staticmethod
    def _pipes(options: dict[str, Any]) -> dict[str, Any]:
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        return {"stdin": null, "stdout": pipe, "stderr": pipe, **options}

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(5)
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            if file is not None:
                file.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def listen(self, name: str, descriptor: int) -> None:
        """Take ``stdout`` or ``stderr`` from this descriptor."""
        reader = threading.Thread(target=self._read, args=(name, descriptor), daemon=True)
        self._readers.append(reader)
        reader.start()

    def text(self, name: str) -> str:
        """What ``stdout`` or ``stderr`` has brought so far."""
        with self._news:
            return self._text[name].decode(errors="backslashreplace")

    def wait_for(self, pattern: str, on: str = "stderr", seconds: float = PATIENCE) -> float:
        """When (monotonic) that stream showed the pattern; AssertionError if it does not within ``seconds``."""
        __tracebackhide__ = True
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                found = re.search(pattern.encode(), self._text[on], re.MULTILINE)
                if found:
                    return next(at for end, at in self._times[on] if end >= found.end())
                left = deadline - time.monotonic()
                if left <= 0 or not any(reader.is_alive() for reader in self._readers):
                    break
                self._news.wait(min(left, 0.2))
        needs.ended(self.text("stderr"))
        raise AssertionError(
            f"no {pattern!r} on {on} within {seconds} s\n{self.text('stdout')[-4000:]}\n{self.text('stderr')}"
        )

    def send(self, number: int) -> float:
        """Send the signal to torchnet alone; when that was."""
        at = time.monotonic()
        os.kill(self.pid, number)
        return at

    def finish(self, seconds: float = PATIENCE) -> Ended:
        """Wait for the end; torchnet itself must not have raised anything (the scripts' lines have a prefix)."""
        __tracebackhide__ = True
        self.process.wait(seconds)
        at = time.monotonic()
        for reader in self._readers:
            reader.join(seconds)
        ended = Ended(self.process.returncode, self.text("stdout"), self.text("stderr"), at)
        assert not re.search("^Traceback", ended.stderr, re.MULTILINE), ended.stderr
        needs.ended(ended.stderr)
        return ended

    def ranks(self) -> dict[int, int]:
        """The pid, as it is out here, of each rank's process."""
        # The oldest of a rank comes last and stays: a daemon whose first parent has just ended looks like one, too.
        below = sorted(descendants(self.pid), key=_started, reverse=True)
        named = {pid: environment(pid).get("RANK") for pid in below}
        return {
            int(rank): pid
            for pid, rank in named.items()
            if rank is not None and named.get(parent(pid)) is None and environment(pid).get("GROUP_RANK")
        }

    def agent(self, rank: int) -> int:
        """The pid of the agent that started a rank: its node's first process."""
        return parent(self.ranks()[rank])

    def _read(self, name: str, descriptor: int) -> None:
        while True:
            try:
                data = os.read(descriptor, _CHUNK)
            except OSError:  # a pseudo-terminal whose other end is closed
                data = b""
            with self._news:
                self._text[name] += data
                self._times[name].append((len(self._text[name]), time.monotonic()))
                self._news.notify_all()
            if not data:
                return


def run(*arguments: object, seconds: float = PATIENCE, **options: Any) -> Ended:
    """A job from its start to its end."""
    __tracebackhide__ = True
    with Job(*arguments, **options) as job:
        return job.finish(seconds)


def script(folder: Path, text: str, name: str = "script.py") -> Path:
    """A script of the given text."""
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def receipt(path: Path) -> dict[str, Any]:
    """The receipt at ``path``, which the schema that is shipped must allow."""
    found: dict[str, Any] = json.loads(path.read_text())
    schema = json.loads((ROOT / "torchnet" / "receipt" / "receipt.schema.json").read_text())
    assert not errors(found, schema)
    return found


def lines(text: str, rank: int) -> list[str]:
    """What one rank printed, without the prefix."""
    found = re.findall(rf"^\[rank {rank}\] +(.*)$", text, re.MULTILINE)
    return [line.removesuffix("\r") for line in found]


def descendants(pid: int) -> list[int]:
    """Everything below a process that still runs."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            below.setdefault(parent(int(name)), []).append(int(name))
    found, queue = [], [pid]
    while queue:
        children = below.get(queue.pop(), [])
        found += children
        queue += children
    return found


def parent(pid: int) -> int:
    """The parent's pid; 0 if the process has ended."""
    state = _stat(pid)
    return int(state[1]) if state and state[0] != "Z" else 0


def state(pid: int) -> str:
    """The letter of proc(5): R, S, D, T (stopped), Z; "" when it is gone."""
    found = _stat(pid)
    return found[0] if found else ""


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _started(pid: int) -> tuple[int, int]:
    """When, in the kernel's ticks since it booted (starttime in proc(5)), and as which of the same tick."""
    state = _stat(pid)
    return int(state[19]) if state else 0, pid


def environment(pid: int) -> dict[str, str]:
    """The variables that a process was started with."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(word.decode(errors="replace").split("=", 1) for word in words if b"=" in word)


def until(condition: Any, what: str, seconds: float = PATIENCE, pause: float = 0.05) -> float:
    """Wait until ``condition()`` is true; when (monotonic) it was seen to be.

    ``pause`` is the time between two looks: ``SLOW`` where each starts a process or goes through all of /proc.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(pause)
    return time.monotonic()


def marked(mark: str) -> Iterator[int]:
    """Processes anywhere on the machine whose environment holds the mark, however they detached themselves."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid() or state(int(name)) in ("", "Z"):
            continue
        if mark in environment(int(name)).values():
            yield int(name)
