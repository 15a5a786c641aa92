"""Parse the lines of a pod's log (pure): the inverse of `torchnet.agent.log_reporter.LogReporter`.

    [3] text                 rank 3's standard output
    [3!] text                rank 3's standard error
    torchnet: receipt: {…}   the job's receipt
    torchnet: PHASE: text    the state of a phase
    torchnet: PHASE: 0.012 s the duration of a phase
    torchnet: text           a notice
    anything else            output of another program in the image, shown as a notice

A script cannot imitate the agent's lines: each line of its output begins with its rank in brackets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torchnet.text import loads

Event = dict[str, Any]
_OUTPUT = re.compile(r"\[(\d{1,7})(!?)\] ?")
_TIME = re.compile(r"(?:\w+: |torchnet's own time: )\d+\.\d{3} s(?:, waited \d+\.\d{3} s)?")
_PHASES = ("discover", "join", "preflight", "environment", "run")
OWN = "torchnet: "
LONGEST = 64 << 20  # bytes of a line: the receipt of 10,000 workers fits; longer lines come in pieces


@dataclass(frozen=True)
class StampedLine:
    """A log line with the kubelet's time stamp (RFC 3339 with nanoseconds, in UTC: stamps sort as strings)."""

    stamp: str
    text: str


def stamped(line: bytes) -> StampedLine:
    """Parse a line that the API returns with ``timestamps=true``."""
    text = line.decode("utf-8", "backslashreplace")
    stamp, _, rest = text.partition(" ")
    return StampedLine(stamp, rest) if stamp[:1].isdigit() and "T" in stamp else StampedLine("", text)


def event(text: str, node: int, pod: str) -> Event:
    """The event for one line of a worker's log.

    Args:
        node: the worker's node rank.
        pod: the worker's name, as a prefix for lines that are not an agent's.
    """
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
    if not text.startswith(OWN):
        return {"event": "notice", "node": None, "level": "info", "text": f"{pod}: {text}"}
    content = text[len(OWN) :]
    for name in ("receipt", "worker receipt"):
        if content.startswith(f"{name}: {{"):
            try:
                body = loads(content[len(name) + 2 :], max_size=LONGEST)
            except ValueError:
                break
            return {"event": name.replace(" ", "_"), "receipt": body}
    if _TIME.fullmatch(content):
        return {"event": "time", "node": node, "text": content}
    phase, colon, rest = content.partition(": ")
    if colon and phase in _PHASES:
        return {"event": "phase", "node": node, "phase": phase, "text": rest}
    level = "info"
    for word in ("warning", "error"):
        if content.startswith(f"{word}: "):
            level, content = word, content[len(word) + 2 :]
    return {"event": "notice", "node": None, "level": level, "text": content}


class Resume:
    """A reader's position in a container's log, so that reconnecting neither repeats nor skips lines.

    ``sinceTime`` has a resolution of one second, so after a reconnect some lines come again: those with stamps before
    the last one, and as many with the last stamp as were read. If the last line does not come again, it was rotated
    away, perhaps with lines after it: that is a gap.
    """

    def __init__(self) -> None:
        self._last = ""
        self._same = 0  # lines read that have the last stamp
        self._skip: int | None = None  # how many of them are still to come again
        self.gap: tuple[str, str] | None = None

    @property
    def since(self) -> str | None:
        """The value of ``sinceTime``; None reads from the beginning."""
        return self._last[:19] + "Z" if self._last else None

    def again(self) -> None:
        """Prepare for lines that come again, before the log is reopened."""
        self._skip = self._same if self._last else None

    def take(self, line: StampedLine) -> bool:
        """Whether this line is new.

        Sets :attr:`gap` to the stamps around it if lines before this one may be missing, else to None.
        """
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
