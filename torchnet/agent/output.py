"""From a process's bytes to lines, whatever the bytes are."""

from __future__ import annotations

import codecs
import re
import time
from collections import deque
from collections.abc import Callable

# A line without an end is passed on in pieces of this many characters.
PIECE = 64 << 10
TAIL_LINES, TAIL_CHARACTERS = 20, 2000

# "\r" as the last character is perhaps half of "\r\n": the next bytes tell, or Lines.idle().
_END = re.compile(r"\r\n|\n|\r(?!\Z)")

Emit = Callable[[str, str], None]
Tail = deque[tuple[float, str]]  # when (monotonic) a line ended, and the line


class Lines:
    """Cuts one stream of a process into lines.

    ``emit(text, end)`` gets each line and its end, ``"\\n"`` or ``"\\r"`` (progress bars rewrite a line with it); an
    unfinished line, such as a prompt, has the end ``""`` and comes out when :meth:`idle` is called.  Bytes that are no
    UTF-8 come out as ``\\xNN``.
    """

    def __init__(self, emit: Emit, tail: Tail | None = None) -> None:
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
        """Nothing came for a moment: what there is of a line is shown."""
        if self._rest.endswith("\r"):
            self._out(self._rest[:-1], "\r")
        elif self._rest:
            self._out(self._rest, "")
        self._rest = ""

    def close(self) -> None:
        """The stream has ended."""
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
