"""A benchmark while it runs: takes rank 0's figures out of the job's events, and shows what is measured.

The console gives each event to the :class:`Collector` first. What it keeps is not shown: the figures, and the receipt,
of which the summary has one line. All else goes its way: other output, warnings, failures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchnet.ansi import clip
from torchnet.bench.worker import messages
from torchnet.console.terminal import Stream
from torchnet.text import printable

Event = Mapping[str, Any]
_OWNER = "bench"
_LONGEST = 1 << 20  # characters of a line: a message is below 16 KiB


class Collector:
    """A console's listener. ``stream``: where progress is shown, None for nowhere.

    ``messages``: all that came, in order. ``receipt``: the job's, as a dictionary. ``failure``: the first one, with the
    fields of torchnet.agent.events.Failure. ``unreadable``: why marked lines could not be read. ``aside``: what ranks
    print goes to standard error, since standard output is for the results alone (NCCL logs to standard output).
    """

    def __init__(self, stream: Stream | None = None, *, aside: bool = False) -> None:
        self.messages: list[messages.Message] = []
        self.receipt: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None
        self.unreadable: list[str] = []
        self._stream, self._aside = stream, aside
        self._said = ""
        self._line = ""

    def __call__(self, event: Event) -> bool | Event:
        """True: the event was this one's own; else what is to be shown of it."""
        kind = event.get("event")
        if kind == "output" and event.get("rank") == 0 and event.get("stream") == "stdout":
            mine = self._output(str(event.get("data", "")), str(event.get("end", "\n")))
        else:
            mine = kind == "receipt"
            self._other(kind, event)
        if mine:
            return True
        self.finish()
        if self._aside and kind == "output" and event.get("stream") == "stdout":
            return {**event, "stream": "stderr"}
        return _without_figures(event) if kind == "failure" else False

    def finish(self) -> None:
        """Clear the line about progress, so that others can write."""
        if self._stream is not None and self._stream.tty and self._stream.surface.owner == _OWNER:
            self._stream.close_line()

    def _other(self, kind: object, event: Event) -> None:
        if kind == "receipt" and isinstance(event.get("receipt"), Mapping):
            self.receipt = dict(event["receipt"])
        elif kind == "failure" and not event.get("restart") and self.failure is None:
            self.failure = {name: value for name, value in event.items() if name != "event"}
        elif kind == "started" and int(event.get("attempt", 0) or 0) > 0:
            # The whole group begins again, and with it the figures.
            self.messages.clear()
            self.failure, self._line = None, ""

    def _output(self, data: str, end: str) -> bool:
        """A piece of rank 0's output; long lines come in several."""
        line = self._line + data
        if not _may_be_marked(line):
            held, self._line = self._line, ""
            if held and self._stream is not None:
                self._stream.line(printable(held))  # it began like a mark
            return False
        self._line = "" if end or len(line) > _LONGEST else line
        if self._line:
            return True
        try:
            message = messages.read(line)
        except ValueError as error:
            self.unreadable.append(str(error))
            return True
        if message is None:
            # Of a newer worker, if it is marked; else an ordinary line that began like a mark.
            return line.startswith(messages.MARK)
        if isinstance(message, messages.Progress):
            self.show(str(message.text))  # it may be anything, and the figures are not lost for it
        else:
            self.messages.append(message)
        return True

    def show(self, text: str) -> None:
        """What is measured next."""
        stream = self._stream
        if stream is None:
            return
        if stream.tty:
            line = clip(f"torchnet: measuring {printable(text)}", stream.columns - 1)
            stream.rewrite(_OWNER, line, transient=True)
        elif text != self._said:
            self._said = text
            stream.line(f"torchnet: measuring {printable(text, 200)}")


def _may_be_marked(line: str) -> bool:
    """Whether the line is marked, or can still become so."""
    return bool(line) and (line.startswith(messages.MARK) or messages.MARK.startswith(line))


def _without_figures(event: Event) -> Event:
    """A failure tells of the last lines that its rank printed; rank 0's are figures, which are in the summary."""
    tail = event.get("tail")
    if not isinstance(tail, (list, tuple)):
        return event
    return {**event, "tail": [line for line in tail if not str(line).startswith(messages.MARK)]}
