"""Write events to a pod's log, as lines for users and for the launcher that follows the log.

    [3] text         standard output of rank 3, on standard output
    [3!] text        its standard error, also on standard output: two pipes would lose the order
    torchnet: text   everything else, on standard error; "receipt: {…}" is the job's

No line is held back to fill a buffer, and control characters are escaped.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Callable
from typing import TYPE_CHECKING

from torchnet.agent.events import Event
from torchnet.text import printable

if TYPE_CHECKING:
    from torchnet.agent.output_writer import StandardStreams

Write = Callable[[str, str], None]

# An unfinished line is written in pieces of this many characters; container runtimes split at 16 KiB anyway.
_LONGEST = 16 << 10
_REWRITE_SECONDS = 1.0  # between logged states of a progress bar, which changes ten times a second


class LogReporter:
    """Passes whole lines, with line ends, to ``write(stream, text)``, by default the method of ``streams``."""

    def __init__(
        self,
        write: Write | None = None,
        clock: Callable[[], float] = time.monotonic,
        streams: StandardStreams | None = None,
    ) -> None:
        selected = write or (streams.write if streams else None)
        assert selected is not None
        self._write = selected
        self._streams = streams
        self._clock = clock
        self._open: dict[tuple[int, str], str] = {}  # unfinished lines
        self._rewritten: dict[tuple[int, str], tuple[float, str]] = {}
        self._said: set[str] = set()

    @property
    def pending(self) -> int:
        return self._streams.pending if self._streams else 0

    def send(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None:
            handler(event)

    def flush(self) -> None:
        for rank, stream in [*self._open, *self._rewritten]:
            self._line(rank, stream)
        if self._streams:
            self._streams.flush()

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
            if not text:  # the newline after a bar's last state, which may be unwritten
                text = self._rewritten.get(key, (0.0, ""))[1]
            self._rewritten.pop(key, None)
            self._put(rank, stream, text)
        elif text:
            self._open[key] = text

    def _on_raw(self, event: Event) -> None:
        if self._streams is not None:
            self._streams.write_bytes(event["stream"], b64decode(event["data"]))

    def _line(self, rank: int, stream: str) -> None:
        """Write what was held back."""
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

    def _on_stopping(self, event: Event) -> None:
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
        # The samples of --measure are long, and the job's receipt has them.
        body = {name: value for name, value in event["receipt"].items() if name != "series"}
        self._say(f"worker receipt: {json.dumps(body, separators=(',', ':'))}")

    def _say(self, text: str) -> None:
        """Write a text; further lines (stacks) are indented so that they do not look like messages."""
        lines = [printable(line) for line in text.split("\n")]
        self._write(
            "stderr", "".join(f"torchnet: {'  ' if n else ''}{line}\n" for n, line in enumerate(lines))
        )
