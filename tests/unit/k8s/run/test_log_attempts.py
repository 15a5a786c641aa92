"""``torchnet logs -f`` of a run that is queued, suspended or restarted: its end is the run's, not that of its pods."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import client
from tests.unit.api_store import Store, forbidden, storing
from tests.unit.aside import aside, hearing, until
from tests.unit.k8s.run.test_attempts import QUEUE, TRAINS, Workload
from tests.unit.kubernetes_objects import RUN
from torchnet.console.console import Console
from torchnet.k8s.run.log_command import LogReading
from torchnet.signals import Signals

store, signals = pytest.fixture(storing), pytest.fixture(hearing)


@dataclass
class Followed:
    """The logs of a run of two workers, each of which prints the number of its attempt."""

    store: Store
    folder: Path
    signals: Signals
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        for attempt in (1, 2):
            for rank in range(2):
                line = f"2026-01-01T00:00:0{rank}.0Z [{rank}] attempt {attempt}\n"
                self.store.logs[f"{RUN}-{rank}-{attempt}-{rank}"] = line

    def logs(self, one: Workload, *steps: Any) -> int:
        console = Console(self.err, self.out, world_size=2, color=False, tty=False)
        with aside(*steps):
            reading = LogReading(client(self.store, self.folder), one.facts, console, (), follow=True)
            return reading.show(self.signals)

    def shown(self, text: str) -> Any:
        """A step: wait until this was printed."""
        return lambda: until(lambda: text in self.out.getvalue() + self.err.getvalue())

    def lines(self) -> list[str]:
        return sorted(self.out.getvalue().splitlines())


@pytest.fixture
def followed(store: Store, tmp_path: Path, signals: Signals) -> Followed:
    return Followed(store, tmp_path, signals)


BOTH = [f"[rank {rank}] attempt {attempt}" for rank in range(2) for attempt in (1, 2)]


@pytest.mark.parametrize("jobset", [False, True], ids=["Job", "JobSet"])
def test_the_next_attempt_is_followed_after_a_preemption(followed: Followed, jobset: bool) -> None:
    one = Workload(followed.store, TRAINS, jobset=jobset)
    one.job["metadata"]["labels"] |= QUEUE
    steps = one.suspend, followed.shown("until its queue team-a admits it"), 1.0, one.collect, 1.0
    code = followed.logs(one, followed.shown("[rank 1]"), *steps, one.resume, 0.5, one.succeed)
    assert (code, followed.lines()) == (0, BOTH)
    assert "is resumed: the next attempt starts" in followed.err.getvalue()


def test_pods_of_the_last_attempt_that_still_terminate_are_not_taken_for_the_next_ones(
    followed: Followed,
) -> None:
    one = Workload(followed.store, TRAINS)

    def resume_early() -> None:
        one.mark(suspended=False)
        one.create(TRAINS)

    steps = one.suspend, followed.shown("is suspended"), resume_early, followed.shown("attempt 2")
    assert followed.logs(one, followed.shown("[rank 1]"), *steps, 0.3, one.succeed) == 0
    assert set(BOTH) <= set(followed.lines())


@pytest.mark.parametrize("admitted", [True, False], ids=["admitted", "deleted"])
def test_a_queued_run_is_waited_for(followed: Followed, admitted: bool) -> None:
    one = Workload(followed.store, TRAINS)
    one.job["metadata"]["labels"] |= QUEUE
    one.mark(suspended=True)
    one.collect()
    steps: tuple[Any, ...] = (one.resume, one.succeed) if admitted else (followed.store.objects.clear,)
    assert followed.logs(one, followed.shown("queued: "), 1.0, *steps) == 0
    assert followed.lines() == ([line for line in BOTH if line.endswith("2")] if admitted else [])
    assert followed.err.getvalue().count("until its queue team-a admits it") == 1


def test_without_the_right_to_read_the_workload_the_end_of_the_pods_is_the_end(followed: Followed) -> None:
    one = Workload(followed.store, TRAINS)
    followed.store.faults = [("GET", f"/jobs/{RUN}$", forbidden("jobs"))]
    assert followed.logs(one, followed.shown("[rank 1]"), one.suspend, 0.5, one.collect) == 0
    assert "cannot determine whether" in followed.err.getvalue()
