"""The events of this host's agent on the console, in the agent's own process."""

from __future__ import annotations

from typing import Any

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Event
from torchnet.console.console import Console
from torchnet.launcher.console_feed import ConsoleFeed


class ConsoleReporter:
    """Shows events, and keeps the receipts.

    Attributes:
        receipt: The job's, on rank 0; shown by the caller, after all output.
        others_have_one_network: On rank 0, whether no other host has a network besides the backend.
        worker_receipt: This host's.
        error_files: By rank, what processes that failed wrote to TORCHELASTIC_ERROR_FILE.
        failure: Why the job, or this host's part of it, failed; the fields of `torchnet.agent.events.Failure`.
    """

    def __init__(self, loop: EventLoop, console: Console, *, first: bool) -> None:
        self.receipt: dict[str, Any] | None = None
        self.others_have_one_network = False
        self.worker_receipt: dict[str, Any] | None = None
        self.failure: dict[str, Any] | None = None
        self.error_files: dict[int | None, str] = {}
        self._console, self._first = console, first
        self._feed = ConsoleFeed(loop, console)

    @property
    def pending(self) -> int:
        return self._console.pending

    def send(self, event: Event) -> None:
        kind = event["event"]
        if kind == "receipt":
            self.receipt = event["receipt"]
            self.others_have_one_network = event.get("one_network") is True
        elif kind == "worker_receipt":
            self.worker_receipt = event["receipt"]
        elif kind == "error_file":
            self.error_files[event["rank"]] = event["data"]
        elif kind == "started":
            for rank in event["ranks"]:
                self.error_files.pop(rank, None)  # of the attempt before a restart
            self._console.event(event)
        elif kind == "stopping":
            # Rank 0's host has shown the job's failure; the others learn it by this event.
            if self.failure is None and not self._first:
                self._failed({**event, "event": "failure"})
        elif kind == "failure":
            self._failed(event)
        else:
            self._console.event(event)
        self._feed.pace()

    def flush(self) -> None:
        """Do nothing: the caller closes the console."""

    def _failed(self, event: Event) -> None:
        if self.failure is None and not event.get("restart"):
            self.failure = {name: value for name, value in event.items() if name not in ("event", "restart")}
        self._console.event(event)
