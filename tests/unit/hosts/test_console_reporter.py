"""What the launcher of one of several hosts keeps of its agent's events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torchnet.agent.event_loop import EventLoop
from torchnet.hosts.console_reporter import ConsoleReporter


def test_an_error_file_of_an_attempt_before_a_restart_is_forgotten() -> None:
    """Only those of the ranks that start again here."""
    shown: list[str] = []
    console: Any = SimpleNamespace(
        event=lambda event: shown.append(event["event"]), waiting=lambda: (), pending=0
    )
    loop = EventLoop()
    reporter = ConsoleReporter(loop, console, first=True)
    for rank in (0, 2):
        reporter.send({"event": "error_file", "rank": rank, "data": f"of rank {rank}"})
    reporter.send({"event": "started", "node": 0, "attempt": 1, "ranks": [0, 1], "pids": [7, 8]})
    loop.close()
    assert reporter.error_files == {2: "of rank 2"}
    assert shown == ["started"]
