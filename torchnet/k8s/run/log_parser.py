"""What a pod's log says, line by line (pure): the inverse of `torchnet.agent.events.TextReporter`.

    [3] text                 rank 3's standard output
    [3!] text                rank 3's standard error
    torchnet: receipt: {…}   the job's receipt
    torchnet: PHASE: text    a phase's state
    torchnet: PHASE: 0.012 s how long it took
    torchnet: text           a notice
    anything else            of something in the image that is no agent; shown as it is

A script cannot imitate the agent's lines: its own all begin with a rank in brackets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torchnet.text import loads

Event = dict[str, Any]
_OUTPUT = re.compile(r"\[(\d{1,7})(!?)\] ?")
_TIME = re.compile(r"(?:\w+: |torchnet's own time: )\d+\.\d{3} s(?:, waited \d+\.\d{3} s)?")
_PHASES = ("discover", "join", "preflight", "paths", "environment", "run")
_OWN = "torchnet: "
LONGEST = 64 << 20  # bytes of a line, which may be 10,000 workers' receipt; longer ones come in pieces


@dataclass(frozen=True)
class StampedLine:
    """A line of a log with the kubelet's time stamp (RFC 3339 with nanoseconds, UTC: texts sort as times)."""

    stamp: str
    text: str


def stamped(line: bytes) -> StampedLine:
    """A line as the API gives it with ``timestamps=true``."""
    text = line.decode("utf-8", "backslashreplace")
    stamp, _, rest = text.partition(" ")
    return StampedLine(stamp, rest) if stamp[:1].isdigit() and "T" in stamp else StampedLine("", text)


def event(text: str, node: int, pod: str) -> Event:
    """The event that a line of node ``node``'s container stands for."""
    found = _OUTPUT.match(text)
    if found:
        stream = "stderr" if found[2] else "stdout"
        return {
            "event": "output",
            "rank": int(found[1]),
            "stream": stream,
            "data": text[found.end() :],
            "end": "\n",
        }
    if not text.startswith(_OWN):
        return {"event": "notice", "node": None, "level": "info", "text": f"{pod}: {text}"}
    said = text[len(_OWN) :]
    for name in ("receipt", "worker receipt"):
        if said.startswith(f"{name}: {{"):
            try:
                body = loads(said[len(name) + 2 :], max_size=LONGEST)
            except ValueError:
                break
            return {"event": name.replace(" ", "_"), "receipt": body}
    if _TIME.fullmatch(said):
        return {"event": "time", "node": node, "text": said}
    phase, colon, rest = said.partition(": ")
    if colon and phase in _PHASES:
        return {"event": "phase", "node": node, "phase": phase, "text": rest}
    level = "info"
    for word in ("warning", "error"):
        if said.startswith(f"{word}: "):
            level, said = word, said[len(word) + 2 :]
    return {"event": "notice", "node": None, "level": level, "text": said}


class Resume:
    """Where in a container's log a reader is, so that reading on after a break neither doubles nor leaves out.

    The API reads on from a second (``sinceTime`` has no fractions), so some lines come again: those before the last
    stamp, and as many with it as had been seen. Where the last line does not come again, what it was in has been
    rotated away, and perhaps more with it: that is a gap.
    """

    def __init__(self) -> None:
        self._last = ""
        self._same = 0  # lines with the last stamp
        self._skip: int | None = None  # of those, how many are still to come again
        self.gap: tuple[str, str] | None = None

    @property
    def since(self) -> str | None:
        """For ``sinceTime``; None is from the beginning."""
        return self._last[:19] + "Z" if self._last else None

    def again(self) -> None:
        """The log is opened once more."""
        self._skip = self._same if self._last else None

    def take(self, line: StampedLine) -> bool:
        """Whether this line is new; :attr:`gap` is then set where something is missing before it."""
        self.gap = None
        if not line.stamp:
            return True
        if self._skip is not None:
            if line.stamp < self._last:
                return False
            if line.stamp == self._last and self._skip > 0:
                self._skip -= 1
                return False
            if line.stamp > self._last and self._skip == self._same:
                self.gap = (self._last, line.stamp)
            self._skip = None
        if line.stamp == self._last:
            self._same += 1
        else:
            self._last, self._same = line.stamp, 1
        return True
