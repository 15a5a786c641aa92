"""A JobSet's broken gang: why its next attempt begins, and which worker holds it up. Nothing asks the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kubernetes_objects import (
    NAMESPACE,
    RUN,
    ended,
    facts,
    failure,
    message,
    pod,
    running,
    terminated,
)
from torchnet.k8s.run.jobset_restart import JobSetRestart
from torchnet.k8s.run.node_loss import NodeLoss
from torchnet.k8s.run.worker_set import WorkerSet

FACTS = facts(2, jobset=True)
TRAINS = pod(0, phase="Running", worker=running(), attempt=0)
LOST = pod(1, phase="Failed", worker=terminated(137, None), attempt=0)
DOWN = f"torchnet down {RUN} -n {NAMESPACE}"


class Seen:
    """A gang as a launcher sees it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.worker_set = WorkerSet(2, restarts=True, replaces=True)
        self.node_loss = NodeLoss(FACTS, lambda _: None)
        self.restart = JobSetRestart(FACTS, self.worker_set, self.node_loss, self.lines.append)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def silent(rank: int) -> dict[str, Any]:
    """A pod on a lost node."""
    body = pod(rank, phase="Running", worker=running(), attempt=0)
    body["metadata"] |= {
        "deletionTimestamp": "2026-01-01T00:01:00Z",
        "deletionGracePeriodSeconds": 30,
    }
    return body


def test_the_next_attempt_is_announced_once_with_what_was_lost(seen: Seen) -> None:
    seen.worker_set.relist([TRAINS, LOST])
    assert seen.restart.look(100.0, 25.0, last=False) is None
    assert not seen.restart.begun(0)
    # The JobSet deletes all of them: which one was lost can be seen no more.
    stopped = message(0, 143, failure=failure("interrupted", 143, text="stopped by SIGTERM"))
    gone = [ended(0, 143, stopped, attempt=0, version=2), ended(1, 143, stopped, attempt=0, version=2)]
    for one in gone:
        one["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    seen.worker_set.relist(gone)
    seen.restart.look(101.0, 25.0, last=False)
    assert seen.restart.begun(1)
    assert not seen.restart.begun(1)
    (text,) = seen.lines
    assert text.startswith(
        f"the JobSet restarts its workers (restart 1): lost {RUN}-1 (node rank 1 on node1)"
    )
    assert (seen.restart.attempt, seen.restart.workers) == (1, {})


def test_a_worker_that_does_not_end_is_named_once_after_its_time(seen: Seen) -> None:
    seen.worker_set.relist([TRAINS, LOST])
    for now in (100.0, 124.0):
        assert seen.restart.look(now, 25.0, last=False) is None
    assert seen.lines == []
    for now in (126.0, 127.0, 1000.0):
        assert seen.restart.look(now, 25.0, last=False) is None
    (text,) = seen.lines
    assert text.startswith(f"{RUN}-0 on node node1 ")
    assert DOWN in text


def test_workers_that_have_ended_hold_up_nothing(seen: Seen) -> None:
    seen.worker_set.relist([ended(0, 70, message(0, 70, failure=failure("lost", 70)), attempt=0), LOST])
    for now in (100.0, 200.0):
        assert seen.restart.look(now, 25.0, last=False) is None
    assert seen.lines == []


def test_a_worker_on_a_silent_node_is_named_at_once_with_the_administrators_command(seen: Seen) -> None:
    """Also where the others train on, since they reach it over the network."""
    seen.worker_set.relist([TRAINS, silent(1)])
    for now in (100.0, 136.0, 137.0):
        seen.node_loss.look(seen.restart.workers, now)
        assert seen.restart.look(now, 25.0, last=False) is None
    (text,) = seen.lines
    assert text.startswith(f"{RUN}-1 on node node1 ")
    assert "taint nodes node1 node.kubernetes.io/out-of-service=" in text
    assert DOWN in text
    assert seen.restart.begun(1)
    assert "does not report" in seen.lines[1]
    # It hangs on, and is nothing to the next attempt.
    seen.node_loss.look(seen.worker_set.workers(), 200.0)
    assert seen.restart.look(200.0, 25.0, last=False) is None
    assert (seen.node_loss.any_lost, len(seen.lines)) == (False, 2)


def test_a_suspension_begins_the_time_anew(seen: Seen) -> None:
    seen.worker_set.relist([TRAINS, LOST])
    seen.restart.look(100.0, 25.0, last=False)
    seen.restart.forget()
    seen.restart.look(200.0, 25.0, last=False)
    assert seen.lines == []


def test_the_last_attempt_has_failed_when_its_time_is_over(seen: Seen) -> None:
    seen.worker_set.relist([TRAINS, LOST])
    assert seen.restart.look(100.0, 25.0, last=True) is None
    found = seen.restart.look(126.0, 25.0, last=True)
    assert found is not None
    assert (found.kind, found.code, seen.lines) == ("lost", 70, [])
