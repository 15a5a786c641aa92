"""Where lines are written: a terminal or a pipe, with the one line on it that may be unfinished."""

from __future__ import annotations

import os
import select
import stat
import time
from collections import deque
from collections.abc import Hashable, Mapping
from typing import TextIO

ERASE = "\r\x1b[K"  # to the first column, and the line cleared: the only movement that torchnet itself makes
COLUMNS = 80  # of anything that is no terminal
_AT_ONCE = select.PIPE_BUF  # bytes that a pipe takes without blocking when it is ready (pipe(7))


class Surface:
    """What is written on: two streams that are one terminal, or one pipe, share it, and so know each other's
    lines. What a slow reader does not take at once waits here, in order, and nobody waits for it.

    ``owner`` names who has left the last line unfinished; ``transient`` that this line is erased, not closed.
    """

    def __init__(self) -> None:
        self.owner: Hashable = None
        self.transient = False
        self.pending = 0
        """Bytes that wait for the reader."""
        self._queue: deque[tuple[Stream, memoryview]] = deque()

    @property
    def waiting(self) -> int | None:
        """The descriptor that has to become writable before anything more can be written; None if nothing waits."""
        return self._queue[0][0].descriptor if self._queue else None

    def put(self, stream: Stream, data: bytes) -> None:
        """Write ``data`` by this stream when what was put before is written."""
        self._queue.append((stream, memoryview(data)))
        self.pending += len(data)
        self.push()

    def push(self, seconds: float | None = 0.0) -> None:
        """Write what waits, as far as the reader takes it within so many seconds (None: whenever that is)."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._queue:
            stream, data = self._queue.popleft()
            written = stream.write_some(data, deadline)
            self.pending -= written
            if written < len(data):
                self._queue.appendleft((stream, data[written:]))
            if not written:
                return

    def give_up(self) -> None:
        """Nobody reads: what waits is dropped, and so is what is written later."""
        while self._queue:
            stream, data = self._queue.popleft()
            self.pending -= len(data)
            stream.error = stream.error or OSError("nobody reads it")


class Stream:
    """One output stream. Writing to it never raises: one that is closed at the other end, or full, is given
    up.

    ``tty`` and ``color`` are found out where they are None: colours are for terminals, unless NO_COLOR
    (first) or FORCE_COLOR say otherwise (https://no-color.org, https://force-color.org; the order is that of
    Python 3.13). A terminal of the kind "dumb" gets neither colours nor rewritten lines.
    """

    def __init__(
        self,
        file: TextIO,
        *,
        surface: Surface,
        environ: Mapping[str, str],
        tty: bool | None,
        color: bool | None,
    ) -> None:
        self.file = file
        self.surface = surface
        self.tty = (_isatty(file) if tty is None else tty) and environ.get("TERM") != "dumb"
        self.color = _wants_color(self.tty, environ) if color is None else color
        self.error: OSError | ValueError | None = None
        self._reported = False
        self.descriptor = _descriptor(file)
        self._at_once = _AT_ONCE if self.descriptor is None or _may_block(self.descriptor) else 1 << 20
        self._encoding = getattr(file, "encoding", None) or "utf-8"

    @property
    def columns(self) -> int:
        """The terminal's width now; 80 for a pipe or a file."""
        if self.descriptor is None or not self.tty:
            return COLUMNS
        try:
            return os.get_terminal_size(self.descriptor).columns or COLUMNS
        except OSError:
            return COLUMNS

    def line(self, text: str) -> None:
        """A whole line."""
        self._write(self._finish() + text + "\n")

    def part(self, owner: Hashable, first: str, text: str) -> None:
        """A piece of a line that stays unfinished: ``first`` + text, or the text alone if the line was the
        owner's.
        """
        if self.surface.owner != owner:
            text = self._finish() + first + text
        self.surface.owner, self.surface.transient = owner, False
        self._write(text)

    def rewrite(self, owner: Hashable, text: str, *, transient: bool = False) -> None:
        """The owner's line, written anew in place; for terminals alone, and for texts that fit the width."""
        start = ERASE if self.surface.owner == owner else self._finish()
        self.surface.owner, self.surface.transient = owner, transient
        self._write(start + text)

    def end(self, owner: Hashable, text: str | None = None) -> None:
        """End the owner's unfinished line, if it is still there; with a text, write it in the line's place
        before.
        """
        if self.surface.owner == owner:
            self.surface.owner = None
            self._write("\n" if text is None else f"{ERASE}{text}\n")
        elif text is not None:
            self.line(text)

    def close_line(self) -> None:
        """End whatever line is unfinished, whosever it is."""
        text = self._finish()
        if text:
            self._write(text)

    def failed_now(self) -> OSError | ValueError | None:
        """Why this stream was given up; told once."""
        if self.error is None or self._reported:
            return None
        self._reported = True
        return self.error

    def write_some(self, data: memoryview, deadline: float | None) -> int:
        """Write the beginning of ``data``; how much that was: 0 if the reader took nothing until the deadline."""
        assert self.descriptor is not None
        ready = select.poll()
        ready.register(self.descriptor, select.POLLOUT)
        while self.error is None:
            left = None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)
            try:
                # More than a pipe's atomic size could block in the middle, and signals would wait with it.
                return os.write(self.descriptor, data[: self._at_once]) if ready.poll(left) else 0
            except BlockingIOError:
                time.sleep(
                    0.01
                )  # another program has left the terminal non-blocking, and it is full after all
                if left == 0:
                    return 0
            except OSError as error:
                self.error = error
        return len(data)  # a stream that has failed takes everything

    def _finish(self) -> str:
        owner, self.surface.owner = self.surface.owner, None
        return "" if owner is None else ERASE if self.surface.transient else "\n"

    def _write(self, text: str) -> None:
        if self.error is not None:
            return
        try:
            self.file.flush()
            # Past the text layer, whose encoding may know less than Unicode (LANG=C) and would raise.
            data = text.encode(self._encoding, "backslashreplace")
            if self.descriptor is None:
                self.file.write(data.decode(self._encoding))
                self.file.flush()
            elif data:
                self.surface.put(self, data)
        except (OSError, ValueError) as error:  # ValueError: the file object is closed
            self.error = error


def streams(
    stderr: TextIO, stdout: TextIO, *, environ: Mapping[str, str], tty: bool | None, color: bool | None
) -> tuple[Stream, Stream]:
    """The two streams, on one surface if both are the same terminal, pipe or file."""
    surface = Surface()
    other = surface if _identity(stderr) == _identity(stdout) else Surface()
    return (
        Stream(stderr, surface=surface, environ=environ, tty=tty, color=color),
        Stream(stdout, surface=other, environ=environ, tty=tty, color=color),
    )


def _wants_color(tty: bool, environ: Mapping[str, str]) -> bool:
    if environ.get("NO_COLOR"):
        return False
    forced = environ.get("FORCE_COLOR", "")
    return forced != "0" if forced else tty


def _isatty(file: TextIO) -> bool:
    try:
        return file.isatty()
    except ValueError:
        return False


def _descriptor(file: TextIO) -> int | None:
    try:
        return file.fileno()
    except (OSError, ValueError):  # a StringIO, or closed
        return None


def _identity(file: TextIO) -> Hashable:
    descriptor = _descriptor(file)
    if descriptor is None:
        return id(file)
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _may_block(descriptor: int) -> bool:
    return not stat.S_ISREG(os.fstat(descriptor).st_mode)
