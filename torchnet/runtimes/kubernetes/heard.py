"""What the pods' logs say, brought to the console and into files: equal words of many agents once."""

from __future__ import annotations

from collections.abc import Callable

from torchnet.agent.report import BACKLOG
from torchnet.runtimes.kubernetes.following import Files
from torchnet.runtimes.kubernetes.lines import Event
from torchnet.ui.console import Console

_LINES_AT_ONCE = 2000
_REMARKS = 1000  # different notices and phases that are remembered


class Heard:
    """``next_event`` gives what has come, None where that is all.

    ``receipts``: by the pod's UID, as of several attempts the last one's counts.
    """

    def __init__(self, console: Console, next_event: Callable[[], Event | None], files: Files) -> None:
        self.receipts: dict[str, object] = {}
        self._console, self._next, self._files = console, next_event, files
        self._remarks: set[str] = set()

    def take(self, *, all_of_it: bool) -> None:
        """What has come, as far as one turn of the launcher's loop may last.

        Who reads slowly slows down the followers, and the job as little as a log does: unless ``all_of_it``, nothing
        is taken while the console has more than enough to write.
        """
        for _ in range(_LINES_AT_ONCE):
            if self._console.pending > BACKLOG and not all_of_it:
                return
            event = self._next()
            if event is None:
                return
            self._event(event)

    def said(self, text: str) -> bool:
        """Whether an agent has said this already."""
        return text in self._remarks

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _event(self, event: Event) -> None:
        kind = event["event"]
        if kind == "receipt":
            self.receipts[event["uid"]] = event["receipt"]
        elif kind == "notice":
            text = str(event["text"])
            # Indented lines belong to the one before, which may be another one next time.
            if self._first(text) or text.startswith("  "):
                self._console.event(event)
        elif kind == "phase":
            # Both containers join; what the second one only repeats is no news.
            if self._first(f"{event['node']} {event['phase']}: {event['text']}"):
                self._console.event(event)
        elif kind == "output":
            self._output(event)
        elif kind not in ("worker_receipt", "time"):
            self._console.event(event)

    def _first(self, text: str) -> bool:
        if text in self._remarks:
            return False
        if len(self._remarks) < _REMARKS:
            self._remarks.add(text)
        return True

    def _output(self, event: Event) -> None:
        self._files.write(event["rank"], event["data"])
        if self._files.problem:
            text, self._files.problem = self._files.problem, ""
            self._console.notice(text, "warning")
        self._console.event(event)
