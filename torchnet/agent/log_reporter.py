"""Events as lines for people and for the launcher that follows the log: what a pod's container writes.

    [3] text         standard output of rank 3, on standard output
    [3!] text        its standard error, there as well: two pipes would lose the order between them
    torchnet: text   everything else, on standard error; "receipt: {…}" is the job's

One line each, at once; whatever a terminal could act on is escaped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from torchnet.agent.events import Event
from torchnet.text import printable

Write = Callable[[str, str], None]

# A line that does not end is written in pieces of this many characters; container runtimes cut at 16 KiB anyway.
_LONGEST = 16 << 10
_REWRITE_SECONDS = 1.0  # progress bars rewrite their line ten times a second: so often it is kept


class LogReporter:
    """``write(stream, text)`` gets whole lines with their ends."""

    pending = 0

    def __init__(self, write: Write | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write or _write
        self._clock = clock
        self._open: dict[tuple[int, str], str] = {}  # what there is of a line that has not ended
        self._rewritten: dict[tuple[int, str], tuple[float, str]] = {}
        self._said: set[str] = set()

    def send(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None:
            handler(event)

    def flush(self) -> None:
        for rank, stream in [*self._open, *self._rewritten]:
            self._line(rank, stream)
        for file in (sys.stdout, sys.stderr):
            _flushed(file)

    def _on_output(self, event: Event) -> None:
        rank, stream, end = event["rank"], event["stream"], event["end"]
        key = rank, stream
        text = self._open.pop(key, "") + event["data"]
        if end == "\r":
            since, _ = self._rewritten.get(key, (0.0, ""))
            if self._clock() - since < _REWRITE_SECONDS:
                self._rewritten[key] = since, text
                return
            self._rewritten[key] = self._clock(), ""
            self._put(rank, stream, text)
        elif end or len(text) >= _LONGEST:
            if not text:  # the newline after a bar's last state, which may not have been written
                text = self._rewritten.get(key, (0.0, ""))[1]
            self._rewritten.pop(key, None)
            self._put(rank, stream, text)
        elif text:
            self._open[key] = text

    def _line(self, rank: int, stream: str) -> None:
        """Whatever was kept back is written."""
        text = self._open.pop((rank, stream), "") or self._rewritten.pop((rank, stream), (0.0, ""))[1]
        if text:
            self._put(rank, stream, text)

    def _put(self, rank: int, stream: str, text: str) -> None:
        mark = "" if stream == "stdout" else "!"
        while len(text) > _LONGEST:
            self._write("stdout", f"[{rank}{mark}] {printable(text[:_LONGEST])}\n")
            text = text[_LONGEST:]
        self._write("stdout", f"[{rank}{mark}] {printable(text)}\n")

    def _on_phase(self, event: Event) -> None:
        self._say(f"{event['phase']}: {event['text']}")

    def _on_notice(self, event: Event) -> None:
        self._say(event["text"])

    def _on_failure(self, event: Event) -> None:
        self._said.add(event["text"])
        self._say(event["text"])

    def _on_told(self, event: Event) -> None:
        if event["text"] not in self._said:
            self._on_failure(event)

    def _on_replaced(self, event: Event) -> None:
        self._say(event["text"])

    def _on_stall(self, event: Event) -> None:
        self._say(event["text"])

    def _on_time(self, event: Event) -> None:
        waited = f", waited {event['waited_s']:.3f} s" if event["waited_s"] >= 0.001 else ""
        self._say(f"{event['phase']}: {event['own_s']:.3f} s{waited}")

    def _on_own_time(self, event: Event) -> None:
        self._say(f"torchnet's own time: {event['own_s']:.3f} s")

    def _on_receipt(self, event: Event) -> None:
        self._say(f"receipt: {json.dumps(event['receipt'], separators=(',', ':'))}")

    def _on_worker_receipt(self, event: Event) -> None:
        # Without the samples of --measure, which are long: rank 0's receipt of the job has them.
        body = {name: value for name, value in event["receipt"].items() if name != "series"}
        self._say(f"worker receipt: {json.dumps(body, separators=(',', ':'))}")

    def _say(self, text: str) -> None:
        """A text of several lines (stacks) is indented, so that no part looks like a line of its own."""
        lines = [printable(line) for line in text.split("\n")]
        self._write(
            "stderr", "".join(f"torchnet: {'  ' if n else ''}{line}\n" for n, line in enumerate(lines))
        )


def _write(stream: str, text: str) -> None:
    file = sys.stdout if stream == "stdout" else sys.stderr
    try:
        file.write(text)
        file.flush()
    except OSError:
        pass  # nobody reads the log any more: the job goes on


def _flushed(file: object) -> None:
    try:
        file.flush()  # type: ignore[attr-defined]
    except (OSError, ValueError):
        pass
