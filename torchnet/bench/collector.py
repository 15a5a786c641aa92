"""Follow a running benchmark: take rank 0's figures out of the job's events, and show what is being measured.

The console passes each event to the :class:`Collector` first. The collector keeps the figures and the receipt, which
are not shown (the summary has one line of the receipt). Everything else is shown as usual: other output, warnings and
failures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchnet.ansi import clip
from torchnet.bench.worker import result_messages
from torchnet.console.terminal import Stream
from torchnet.text import printable

Event = Mapping[str, Any]
_OWNER = "bench"
_LONGEST = 1 << 20  # characters of a line; messages are shorter than 16 KiB


class Collector:
    """A console listener.

    ``stream`` shows progress; None shows nothing. ``messages`` has all messages in order. ``receipt`` is the job's
    receipt as a dictionary. ``failure`` is the first failure, with the fields of
    :class:`torchnet.agent.events.Failure`. ``unreadable`` lists why marked lines could not be read. ``aside`` sends the
    ranks' output to standard error, because standard output is reserved for the results (NCCL logs to standard output).
    """

    def __init__(self, stream: Stream | None = None, *, aside: bool = False) -> None:
        self.messages: list[result_messages.Message] = []
        self.receipt: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None
        self.unreadable: list[str] = []
        self._stream, self._aside = stream, aside
        self._last_text = ""
        self._line = ""

    def __call__(self, event: Event) -> bool | Event:
        """Return True if the collector consumed the event, else the event to show, or False to show it unchanged."""
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
        """Clear the progress line, so that others can write."""
        if self._stream is not None and self._stream.tty and self._stream.surface.owner == _OWNER:
            self._stream.close_line()

    def _other(self, kind: object, event: Event) -> None:
        if kind == "receipt" and "attempt" in event:
            self._restart()  # that of an attempt that was suspended, for example
        elif kind == "receipt" and isinstance(event.get("receipt"), Mapping):
            self.receipt = dict(event["receipt"])
        elif kind == "failure" and not event.get("restart") and self.failure is None:
            self.failure = {name: value for name, value in event.items() if name != "event"}
        elif kind == "started" and int(event.get("attempt", 0) or 0) > 0:
            self._restart()

    def _restart(self) -> None:
        """The whole group restarts, and the figures with it."""
        self.messages.clear()
        self.failure, self._line = None, ""

    def _output(self, data: str, end: str) -> bool:
        """Handle a piece of rank 0's output; a long line arrives in several pieces."""
        line = self._line + data
        if not _may_be_marked(line):
            held, self._line = self._line, ""
            if held and self._stream is not None:
                self._stream.line(printable(held))  # it started like a mark
            return False
        self._line = "" if end or len(line) > _LONGEST else line
        if self._line:
            return True
        try:
            message = result_messages.read(line)
        except ValueError as error:
            self.unreadable.append(str(error))
            return True
        if message is None:
            # A marked line of a newer worker, or an ordinary line that starts like a mark.
            return line.startswith(result_messages.MARK)
        if isinstance(message, result_messages.Progress):
            self.show(str(message.text))  # str(): a foreign message must not cost the figures
        else:
            self.messages.append(message)
        return True

    def show(self, text: str) -> None:
        """Show what is measured next."""
        stream = self._stream
        if stream is None:
            return
        if stream.tty:
            line = clip(f"torchnet: measuring {printable(text)}", stream.columns - 1)
            stream.rewrite(_OWNER, line, transient=True)
        elif text != self._last_text:
            self._last_text = text
            stream.line(f"torchnet: measuring {printable(text, 200)}")


def _may_be_marked(line: str) -> bool:
    """Return whether the line is marked, or may become so when the rest of it arrives."""
    return bool(line) and (line.startswith(result_messages.MARK) or result_messages.MARK.startswith(line))


def _without_figures(event: Event) -> Event:
    """Remove the figures from the last lines of output that a failure quotes: the summary shows them."""
    tail = event.get("tail")
    if not isinstance(tail, (list, tuple)):
        return event
    return {**event, "tail": [line for line in tail if not str(line).startswith(result_messages.MARK)]}
