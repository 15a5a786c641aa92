"""Workers whose pods are taken away: told once, and lost when their nodes say nothing beyond the pods' own time."""

from __future__ import annotations

from typing import Any

from tests.unit.kubernetes_objects import RUN, ended, facts, pod, running
from torchnet.k8s.run.node_loss import NodeLoss
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus


def workers(*pods: dict[str, Any]) -> dict[int, WorkerStatus]:
    gang = WorkerSet(2)
    gang.relist(pods)
    return gang.workers()


def deleted(rank: int, grace: int = 30) -> dict[str, Any]:
    body = pod(rank, phase="Running", worker=running())
    body["metadata"] |= {
        "deletionTimestamp": "2026-01-01T00:01:00Z",
        "deletionGracePeriodSeconds": grace,
    }
    return body


def test_a_pod_that_is_taken_away_is_told_once_and_has_its_time() -> None:
    told: list[str] = []
    one = NodeLoss(facts(2), told.append)
    there = workers(pod(0, phase="Running", worker=running()), deleted(1))
    for now in (100.0, 110.0, 135.0):
        one.look(there, now)
    assert told == [f"{RUN}-1 on node1: its pod was deleted"]
    assert not one.any_lost
    assert there[1].ended is None


def test_one_that_does_not_end_beyond_it_is_lost_until_its_node_says_otherwise() -> None:
    one = NodeLoss(facts(2), lambda _: None)
    there = workers(deleted(1))
    for now in (100.0, 136.0):
        one.look(there, now)
    assert one.any_lost
    assert there[1].ended is not None
    assert (there[1].ended.code, "does not report" in there[1].ended.why) == (
        70,
        True,
    )
    for seen in (workers(deleted(1)), {}):
        one.correct(seen)
        assert seen[1] == there[1], "also where the cluster still calls it running, or has forgotten it"
    for later in (ended(1, 42), pod(1, uid="another", phase="Running", worker=running())):
        seen = workers(later)
        one.correct(seen)
        assert seen == workers(later)


def test_what_is_forgotten_is_lost_no_more() -> None:
    """A gang that starts again is not broken by a pod of its last start, which may hang for long."""
    one = NodeLoss(facts(2), lambda _: None)
    there = workers(deleted(1))
    for now in (100.0, 136.0):
        one.look(there, now)
    assert [lost.rank for lost in one.lost] == [1]
    one.forget()
    seen = workers(deleted(1))
    one.look(seen, 140.0)
    one.correct(seen)
    assert (one.any_lost, one.lost, seen[1].ended) == (False, [], None)
