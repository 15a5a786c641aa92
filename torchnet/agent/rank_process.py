"""One training process: its start, its output as lines, and how it ended."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.process_tree import catches
from torchnet.linux import namespaces

# An unfinished line is passed on in pieces of this many characters.
PIECE = 64 << 10
TAIL_LINES, TAIL_CHARACTERS = 20, 2000

# A final "\r" may be half of "\r\n": the next bytes decide, or LineSplitter.idle().
_END = re.compile(r"\r\n|\n|\r(?!\Z)")

EmitLine = Callable[[str, str], None]
Tail = deque[tuple[float, str]]  # when (monotonic) a line ended, and the line


class LineSplitter:
    """Splits one stream of a process into lines.

    ``emit(text, end)`` gets each line and its end, ``"\\n"`` or ``"\\r"`` (from progress bars). :meth:`idle` emits an
    unfinished line, such as a prompt, with the end ``""``. Bytes that are not UTF-8 become ``\\xNN``.
    """

    def __init__(self, emit: EmitLine, tail: Tail | None = None) -> None:
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""
        self._tail = tail if tail is not None else deque(maxlen=TAIL_LINES)
        self._line = ""

    def feed(self, data: bytes) -> None:
        self._cut(self._rest + self._decoder.decode(data))

    def _cut(self, text: str) -> None:
        start = 0
        for end in _END.finditer(text):
            self._out(text[start : end.start()], "\r" if end[0] == "\r" else "\n")
            start = end.end()
        self._rest = text[start:]
        while len(self._rest) > PIECE:
            self._out(self._rest[:PIECE], "")
            self._rest = self._rest[PIECE:]

    def idle(self) -> None:
        """Emit an unfinished line, as no output came for a moment."""
        if self._rest.endswith("\r"):
            self._out(self._rest[:-1], "\r")
        elif self._rest:
            self._out(self._rest, "")
        self._rest = ""

    def close(self) -> None:
        """Emit the rest at the stream's end."""
        self._cut(self._rest + self._decoder.decode(b"", True))  # half a character may follow a "\r"
        if self._rest or self._line:
            self._out(self._rest.rstrip("\r"), "\n")
        self._rest = ""

    @property
    def waiting(self) -> bool:
        return bool(self._rest)

    def _out(self, text: str, end: str) -> None:
        self._emit(text, end)
        self._line += text[: TAIL_CHARACTERS - len(self._line)] if len(self._line) < TAIL_CHARACTERS else ""
        if end == "\n" and self._line.strip():
            self._tail.append((time.monotonic(), self._line))
        if end:
            self._line = ""


STACKS_SIGNAL = signal.SIGRTMIN + 11
IDLE_SECONDS = 0.1
_READ = 64 << 10
_ERROR_BYTES = 1 << 20
_LAST_WORDS_SECONDS = 1.0
_EOF_SECONDS = 0.5  # a grandchild may hold a pipe open long after the process has ended

Emit = Callable[[str, str, str], None]  # stream, text, end


class Process:
    """A rank. ``exited`` is called once, when it has ended and its output has been read.

    Args:
        emit: gets the output as lines.
        raw: gets the output as bytes instead, unless it is None.
        log: gets the bytes of each stream that it names.
    """

    def __init__(
        self,
        loop: EventLoop,
        rank: int,
        argv: list[str],
        env: Mapping[str, str],
        *,
        emit: Emit,
        raw: Callable[[str, bytes], None] | None = None,
        exited: Callable[[Process], None],
        stdin: int | IO[Any],
        log: Mapping[str, Callable[[bytes], None]],
        error_file: str,
    ) -> None:
        self.rank = rank
        self.code: int | None = None
        self.signal = 0  # that killed it; 0 if it exited, whatever its code
        self.ended_at = 0.0
        self.finished = False
        self._loop = loop
        self._exited = exited
        self._log = log
        self._raw = raw
        self._error_file = error_file
        self._stacks = os.memfd_create("torchnet-stacks", 0)
        parent = os.getpid()
        # A process that outlived its agent would train unattended.
        self._popen = subprocess.Popen(
            argv,
            env={**env, "TORCHNET_STACKS": f"{int(STACKS_SIGNAL)}:{self._stacks}"},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(self._stacks,),
            preexec_fn=lambda: _prepare(parent),  # noqa: PLW1509  # no threads here
        )
        self.pid = self._popen.pid
        self._lines: dict[str, LineSplitter] = {}
        self._tails: dict[str, Tail] = {}
        self._files: dict[str, IO[bytes]] = {}
        for name, file in (("stdout", self._popen.stdout), ("stderr", self._popen.stderr)):
            assert file is not None
            os.set_blocking(file.fileno(), False)
            self._files[name] = file
            self._tails[name] = deque(maxlen=TAIL_LINES)
            self._lines[name] = LineSplitter(
                _discard if raw else lambda text, end, name=name: emit(name, text, end),  # type: ignore[misc]
                self._tails[name],
            )
        self.resume()

    def pause(self) -> None:
        """Leave the output in its pipes, so that the process waits for a slow reader."""
        for file in self._files.values():
            self._loop.watch(file)

    def resume(self) -> None:
        for name, file in self._files.items():
            self._loop.watch(file, lambda name=name: self._read(name))  # type: ignore[misc]

    @property
    def blocked(self) -> bool:
        """Whether a pipe of its output is full, so that it waits when it writes.

        A full pipe is at least half full in bytes: two writes in a row share a page, or exceed one together.
        """
        return any(_unread(file) >= _capacity(file) // 2 for file in self._files.values())

    def reaped(self, status: int, at: float) -> None:
        """Record the end, by wait status and Unix time; all that the process wrote is in its pipes by now."""
        code = os.waitstatus_to_exitcode(status)
        self._popen.returncode = code
        self.signal = max(0, -code)
        self.code = code if code >= 0 else 128 - code
        self.ended_at = at
        # Its children may still write. After a failure, do not wait for them: the peers' errors will follow soon, and
        # the cause must be reported first.
        self._loop.later(_EOF_SECONDS if self._files and not code else 0.0, self._finish)

    @property
    def ended(self) -> bool:
        return self.code is not None

    def tail(self) -> list[str]:
        """Return the last lines of output.

        Two pipes have no common order: the last lines of standard error, which may be a traceback, come last, and
        remaining standard output does not displace them.
        """
        since = time.monotonic() - _LAST_WORDS_SECONDS
        last = [entry for entry in self._tails["stderr"] if entry[0] >= since]
        before = [entry for tail in self._tails.values() for entry in tail if entry not in last]
        return [line for _, line in [*sorted(before), *last][-TAIL_LINES:]]

    def cause(self) -> str:
        """Return the message of the error file that torch's ``@record`` writes, or ""."""
        try:
            message = json.loads(self.error())["message"]
            text = message["message"] if isinstance(message, dict) else message
            return str(text).strip()[:TAIL_CHARACTERS]
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def error(self) -> bytes:
        """Return what torch's ``@record`` has written to the error file, or b""."""
        try:
            with open(self._error_file, "rb") as file:
                return file.read(_ERROR_BYTES)
        except OSError:
            return b""

    @property
    def outputs(self) -> list[int]:
        """The open descriptors of its output."""
        return [file.fileno() for file in self._files.values()]

    def release(self) -> None:
        """Read what is left of the output, and close it; for an ended process whose children held its pipes."""
        for name in list(self._files):
            self._read_rest(name)
            self._close(name)

    def ask_stacks(self) -> bool:
        """Make the process write its stacks; return False if it cannot (not Python, or ``-I``)."""
        if self.ended or not catches(self.pid, int(STACKS_SIGNAL)):
            return False
        os.ftruncate(self._stacks, 0)
        os.lseek(self._stacks, 0, os.SEEK_SET)  # the offset is shared with the process
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, STACKS_SIGNAL)
        return True

    def read_stacks(self) -> str:
        size = os.fstat(self._stacks).st_size
        return os.pread(self._stacks, min(size, 256 << 10), 0).decode(errors="replace")

    def _read(self, name: str) -> None:
        file = self._files[name]
        try:
            data = os.read(file.fileno(), _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(name)
            if self.ended and not self._files:
                self._finish()
            return
        self._take(name, data)
        if self._lines[name].waiting:
            self._loop.later(IDLE_SECONDS, lambda: self._idle(name))

    def _take(self, name: str, data: bytes) -> None:
        if name in self._log:
            self._log[name](data)
        if self._raw is not None:
            self._raw(name, data)
        self._lines[name].feed(data)

    def _idle(self, name: str) -> None:
        if name in self._files:
            self._lines[name].idle()

    def _close(self, name: str) -> None:
        file = self._files.pop(name)
        self._loop.watch(file)
        file.close()
        self._lines[name].close()

    def _finish(self) -> None:
        if self.finished:
            return
        self.finished = True
        for name in list(self._files):
            self._read_rest(name)
            if self.code:
                self._close(name)
            else:  # a process that it left behind still writes, and would end by SIGPIPE
                self._lines[name].idle()
        os.close(self._stacks)
        self._exited(self)

    def _read_rest(self, name: str) -> None:
        for _ in range(64):
            try:
                data = os.read(self._files[name].fileno(), _READ)
            except OSError:
                return
            if not data:
                return
            self._take(name, data)


def _prepare(parent: int) -> None:
    """Prepare a process that is about to execute a rank's program."""
    # It would ignore them if a shell started torchnet in the background, and never save a checkpoint at SIGINT.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    namespaces.die_with_parent(signal.SIGKILL, parent)


def _discard(_text: str, _end: str) -> None:
    pass


def _unread(file: IO[bytes]) -> int:
    return int.from_bytes(fcntl.ioctl(file, termios.FIONREAD, bytes(4)), sys.byteorder)


def _capacity(file: IO[bytes]) -> int:
    return fcntl.fcntl(file, fcntl.F_GETPIPE_SZ)
