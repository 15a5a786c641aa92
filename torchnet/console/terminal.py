"""Non-blocking output to terminals, pipes and files, with at most one unfinished line on each."""

from __future__ import annotations

import io
import os
import select
import stat
import time
from collections import deque
from collections.abc import Hashable, Mapping
from typing import TextIO

ERASE = "\r\x1b[K"  # to the first column, and clear the line: torchnet uses no other cursor movement
_RAW = "raw"  # the owner of an unfinished line that nobody completes
COLUMNS = 80  # of anything that is not a terminal
_AT_ONCE = select.PIPE_BUF  # bytes that a ready pipe accepts without blocking (pipe(7))


class Surface:
    """A terminal, pipe or file, shared by the streams that write to it, so that they know each other's lines.

    Bytes that a slow reader does not take at once are queued here in order, and writers do not wait for them.

    Attributes:
        owner: The writer whose line is the unfinished last one; None if the last line is complete.
        transient: Whether the unfinished line is erased, not ended, before anything else is written.
    """

    def __init__(self) -> None:
        self.owner: Hashable = None
        self.transient = False
        self.pending = 0
        """Bytes in the queue."""
        self._queue: deque[tuple[Stream, memoryview]] = deque()

    @property
    def waiting(self) -> int | None:
        """The descriptor to poll for writability before more can be written; None if the queue is empty."""
        return self._queue[0][0].descriptor if self._queue else None

    def put(self, stream: Stream, data: bytes) -> None:
        """Queue ``data`` for ``stream``, and write as much of the queue as possible without blocking."""
        self._queue.append((stream, memoryview(data)))
        self.pending += len(data)
        self.push()

    def push(self, seconds: float | None = 0.0) -> None:
        """Write the queue, as far as the reader takes it within ``seconds`` (None: without a limit)."""
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
        """Drop the queue, and mark its streams as failed, so that later output to them is dropped too."""
        while self._queue:
            stream, data = self._queue.popleft()
            self.pending -= len(data)
            stream.error = stream.error or OSError("its reader does not read")


class Stream:
    """One output stream. Write errors are not raised; after the first one, all further output is dropped.

    Args:
        tty: Whether the stream is a terminal; None to detect it. TERM=dumb counts as no terminal in either case.
        color: Whether to use colours; None for terminals only, unless NO_COLOR or FORCE_COLOR is set.

    Source:
        https://no-color.org, https://force-color.org. NO_COLOR takes precedence, as in Python 3.13.
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
        """The terminal's current width; 80 for a pipe or a file."""
        if self.descriptor is None or not self.tty:
            return COLUMNS
        try:
            return os.get_terminal_size(self.descriptor).columns or COLUMNS
        except OSError:
            return COLUMNS

    def line(self, text: str) -> None:
        """Write a whole line."""
        self._write(self._finish() + text + "\n")

    def part(self, owner: Hashable, first: str, text: str) -> None:
        """Write a piece of a line and leave the line unfinished.

        Args:
            first: Prefix, written only if the unfinished line is not already the owner's.
        """
        if self.surface.owner != owner:
            text = self._finish() + first + text
        self.surface.owner, self.surface.transient = owner, False
        self._write(text)

    def raw(self, data: bytes) -> None:
        """Write a program's bytes as they are, where the one before has stopped."""
        if self.surface.owner not in (None, _RAW):
            self._write(self._finish())
        self.surface.owner, self.surface.transient = None if data.endswith(b"\n") else _RAW, False
        self._write(data)

    def rewrite(self, owner: Hashable, text: str, *, transient: bool = False) -> None:
        """Rewrite the owner's line in place. Only for terminals, and for text that fits the width."""
        start = ERASE if self.surface.owner == owner else self._finish()
        self.surface.owner, self.surface.transient = owner, transient
        self._write(start + text)

    def end(self, owner: Hashable, text: str | None = None) -> None:
        """End the owner's unfinished line, if there is one.

        Args:
            text: Replaces the line; written as a line by itself if the owner has no unfinished line.
        """
        if self.surface.owner == owner:
            self.surface.owner = None
            self._write("\n" if text is None else f"{ERASE}{text}\n")
        elif text is not None:
            self.line(text)

    def close_line(self) -> None:
        """End the unfinished line, if there is one, of any owner; but a program's bytes stay as they are."""
        if self.surface.owner == _RAW:
            return
        text = self._finish()
        if text:
            self._write(text)

    def failed_now(self) -> OSError | ValueError | None:
        """Return why this stream failed, once; None before and afterwards."""
        if self.error is None or self._reported:
            return None
        self._reported = True
        return self.error

    def write_some(self, data: memoryview, deadline: float | None) -> int:
        """Write the beginning of ``data``, waiting until ``deadline`` (monotonic seconds; None: without a limit).

        Returns:
            The number of bytes written: 0 if the reader took nothing in time, all of them if the stream has failed.
        """
        assert self.descriptor is not None
        ready = select.poll()
        ready.register(self.descriptor, select.POLLOUT)
        while self.error is None:
            left = None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)
            try:
                # Writing more than PIPE_BUF bytes could block halfway, and delay the handling of signals.
                return os.write(self.descriptor, data[: self._at_once]) if ready.poll(left) else 0
            except BlockingIOError:
                time.sleep(0.01)  # another program has set the terminal to non-blocking mode, and it is full
                if left == 0:
                    return 0
            except OSError as error:
                self.error = error
        return len(data)  # a stream that has failed drops everything

    def _finish(self) -> str:
        owner, self.surface.owner = self.surface.owner, None
        return "" if owner is None else ERASE if self.surface.transient else "\n"

    def _write(self, text: str | bytes) -> None:
        if self.error is not None:
            return
        try:
            self.file.flush()
            # Bypass the text layer, whose encoding may not cover Unicode (LANG=C), so that it would raise.
            data = text if isinstance(text, bytes) else text.encode(self._encoding, "backslashreplace")
            if self.descriptor is None:
                self.file.write(data.decode(self._encoding, "backslashreplace"))
                self.file.flush()
            elif data:
                self.surface.put(self, data)
        except (OSError, ValueError) as error:  # ValueError: the file object is closed
            self.error = error


def streams(
    stderr: TextIO, stdout: TextIO, *, environ: Mapping[str, str], tty: bool | None, color: bool | None
) -> tuple[Stream, Stream]:
    """Create both streams, on one surface if they are the same terminal, pipe or file."""
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
        return _descriptor(file) is not None and file.isatty()
    except ValueError:
        return False


def _descriptor(file: TextIO) -> int | None:
    """Return the descriptor that ``file`` writes to; None for other objects, and for a closed file.

    The fileno() of a notebook's sys.stdout is that of the notebook server's terminal.
    """
    try:
        return file.fileno() if isinstance(file, io.TextIOWrapper) else None
    except (OSError, ValueError):
        return None


def _identity(file: TextIO) -> Hashable:
    descriptor = _descriptor(file)
    if descriptor is None:
        return id(file)
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _may_block(descriptor: int) -> bool:
    return not stat.S_ISREG(os.fstat(descriptor).st_mode)
