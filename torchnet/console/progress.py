"""Show the phases before the run: one rewritten line on a terminal, one plain line per phase in a pipe."""

from __future__ import annotations

from collections.abc import Callable

from torchnet.ansi import cells, clip
from torchnet.console.terminal import Stream
from torchnet.text import printable

_OWNER = "phases"
_SEPARATOR = " · "


class Progress:
    """Shows ``join 4/4 joined · preflight 12 paths at 9000 bytes``.

    If several nodes report, the one with the lowest number is shown: all nodes join node 0, so it knows about all.
    """

    def __init__(self, stream: Stream, own: Callable[[str], str]) -> None:
        self._stream = stream
        self._own = own  # adds torchnet's prefix to a text
        self._phases: dict[str, str] = {}
        self._current = ""
        self._speaker: int | None = None

    def phase(self, node: int, phase: str, text: str) -> None:
        if self._speaker is not None and node > self._speaker:
            return
        self._speaker = node
        if phase != self._current:
            self._phase_ended()
            if phase in self._phases:  # a restart: the phases begin again
                self.finish()
            self._current = phase
        self._phases[phase] = printable(text)
        if phase == "run":
            self.finish()
        else:
            self.redraw()

    def redraw(self) -> None:
        """Draw the line again after other output has replaced it; does nothing in a pipe."""
        if not self._stream.tty or not self._phases:
            return
        self._stream.rewrite(_OWNER, self._line(self._stream.columns - 1), transient=True)

    def finish(self) -> None:
        """End the line, so that it stays on the terminal and later output appears below it."""
        self._phase_ended()
        if self._stream.tty and self._phases:
            self._stream.end(_OWNER, self._line(self._stream.columns - 1))
        self._phases, self._current = {}, ""

    def _phase_ended(self) -> None:
        text = self._phases.get(self._current, "")
        if text and not self._stream.tty:
            self._stream.line(self._own(f"{printable(self._current)}: {text}"))

    def _line(self, width: int) -> str:
        shown = [f"{printable(phase)} {text}".rstrip() for phase, text in self._phases.items()]
        line = self._own(_SEPARATOR.join(shown))
        while len(shown) > 1 and cells(line) > width:  # drop the oldest phases first
            del shown[0]
            line = self._own("…" + _SEPARATOR + _SEPARATOR.join(shown))
        return clip(line, width)
