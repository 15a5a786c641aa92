"""Print the ranks' output: prefixed lines, unfinished lines, and progress bars that use carriage returns.

A progress bar is rewritten in place only on a terminal that shows a single rank. Otherwise its state is printed as a
line up to twice per second for each stream of a rank, and its last state always. Rejected: one rewritten line per rank.
It needs cursor movements up the screen, and breaks as soon as a line wraps, the window is resized or another program
prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torchnet.ansi import RESET, TerminalLine, clean, clip
from torchnet.console.terminal import Stream

PALETTE = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")  # SGR; no red, which marks errors
LINE_INTERVAL, REWRITE_INTERVAL = 0.5, 0.05  # seconds between two shown states of one bar
_LONGEST = 1 << 16  # characters; a longer line is not treated as a bar any more


@dataclass
class _State:
    """State of one stream of a rank.

    ``line`` and ``begun`` describe an ordinary line. The other attributes describe a progress bar, which lasts from its
    first carriage return to the next newline.
    """

    line: TerminalLine
    begun: bool = False  # whether part of the line has been shown
    bar: bool = False
    text: str = ""  # what has arrived of the bar's current state
    fresh: bool = True  # the next piece overwrites it
    waiting: str | None = None  # the newest state that is not blank and not yet shown
    shown: str | None = None  # the state on the screen
    shown_at: float = field(default=float("-inf"))


class RankLines:
    """Prefixes and writes the output of all ranks.

    Args:
        single: Whether only one rank is shown, so that its progress bars can be rewritten in place.
        clock: Seconds, monotonic.
        prefix: Returns a rank's prefix; None for torchnet's.
    """

    def __init__(
        self,
        stderr: Stream,
        stdout: Stream,
        *,
        world_size: int,
        single: bool,
        clock: Callable[[], float],
        prefix: Callable[[int], str] | None = None,
    ) -> None:
        self._prefix = prefix
        self._streams = {"stderr": stderr, "stdout": stdout}
        self._width = len(str(max(0, world_size - 1)))
        self._single = single
        self._clock = clock
        self._states: dict[tuple[int, str], _State] = {}
        self._waiting: set[tuple[int, str]] = set()

    def prefix(self, rank: int, stream: Stream) -> str:
        """Return ``[rank 3]  ``, padded after the bracket, so that "[rank 3]" is searchable at any world size."""
        if self._prefix is not None:
            return self._prefix(rank)
        padding = " " * (self._width - len(str(rank)) + 1)
        if not stream.color:
            return f"[rank {rank}]{padding}"
        return f"\x1b[{PALETTE[rank % len(PALETTE)]}m[rank {rank}]{RESET}{padding}"

    def write(self, rank: int, name: Literal["stdout", "stderr"], data: str, end: str) -> None:
        """Write one piece of output.

        Args:
            end: What the piece ended with: a newline, a carriage return or nothing.
        """
        key, stream = (rank, name), self._streams[name]
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _State(TerminalLine(colour=stream.color))
        if state.bar:
            self._bar(key, state, data, end)
        elif end == "\r":
            state.bar, state.fresh, state.text, state.shown = True, True, data, None
            if state.begun:  # "50 %\r": this state is already an unfinished line
                self._plain(key, state, data, last=True)
                state.text = state.shown = ""
            self._propose(key, state)
        else:
            self._plain(key, state, data, last=end == "\n")

    def write_raw(self, name: Literal["stdout", "stderr"], data: bytes) -> None:
        """Write output as it is, without a prefix."""
        self._streams[name].raw(data)

    def tick(self) -> None:
        """Show the states of bars that are due; call it regularly."""
        now = self._clock()
        for key in list(self._waiting):
            self._show(key, self._states[key], now)

    def flush(self) -> None:
        """Show the last state of each bar and end unfinished lines; for the end of all output."""
        for key, state in self._states.items():
            if state.bar and (state.waiting or state.text.strip()):
                self._bar(key, state, "", "\n")
            elif state.begun:
                self._plain(key, state, "", last=True)

    def _plain(self, key: tuple[int, str], state: _State, data: str, *, last: bool) -> None:
        stream = self._streams[key[1]]
        text = state.line.feed(data, last=last)
        prefix = self.prefix(key[0], stream)
        if stream.surface.owner != key:
            if last and (text or not state.begun):
                stream.line(prefix + text if text else prefix.rstrip())
            elif text:
                stream.part(key, prefix, text)
        else:
            if text:
                stream.part(key, prefix, text)
            if last:
                stream.end(key)
        state.begun = not last and (state.begun or bool(text))

    def _bar(self, key: tuple[int, str], state: _State, data: str, end: str) -> None:
        if data:
            state.text = data if state.fresh else state.text + data
            state.fresh = False
        if end != "\n" and len(state.text) <= _LONGEST:
            state.fresh = state.fresh or end == "\r"
            self._propose(key, state)
            return
        stream = self._streams[key[1]]
        last = state.text if state.text.strip() else state.waiting or ""
        prefix = self.prefix(key[0], stream)
        if last != state.shown and (last or state.shown is None):
            stream.end(key, prefix + clean(last, colour=stream.color) if last else prefix.rstrip())
        elif last and stream.surface.owner == key:
            stream.end(key, prefix + clean(last, colour=stream.color))  # the bar was cut to the width
        else:
            stream.end(key)
        self._waiting.discard(key)
        state.bar, state.text, state.waiting, state.shown = False, "", None, None

    def _propose(self, key: tuple[int, str], state: _State) -> None:
        if state.text.strip() and state.text != state.shown:
            state.waiting = state.text
            self._waiting.add(key)
            self._show(key, state, self._clock())

    def _show(self, key: tuple[int, str], state: _State, now: float) -> None:
        stream = self._streams[key[1]]
        in_place = self._single and stream.tty
        if state.waiting is None or now - state.shown_at < (REWRITE_INTERVAL if in_place else LINE_INTERVAL):
            return
        text = self.prefix(key[0], stream) + clean(state.waiting, colour=stream.color)
        if in_place:
            stream.rewrite(key, clip(text, stream.columns - 1))
        else:
            stream.line(text)
        state.shown, state.shown_at, state.waiting = state.waiting, now, None
        self._waiting.discard(key)
