"""A JobSet's broken gang: its next start is told, and its Job is told to fail where it would not end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import until
from tests.unit.api_answers import Answer, door
from tests.unit.api_store import Store, forbidden, storing
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

store = pytest.fixture(storing)
FACTS = facts(2, jobset=True)
JOB_NAME = f"{RUN}-w-0"
LOST = pod(1, phase="Failed", worker=terminated(137, None), attempt=0)


class Seen:
    """A gang as a launcher sees it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.told: list[str] = []
        self.problems: list[str] = []
        self.gang = WorkerSet(2, restarts=True, replaces=True)
        self.leaving = NodeLoss(FACTS, lambda _: None)
        one = door(store, folder)
        self.again = JobSetRestart(
            one, FACTS, self.gang, self.leaving, self.told.append, self.problems.append
        )

    def patched(self, count: int) -> dict[str, Any]:
        """What has been patched, by the objects' names, once it is so many."""
        until(lambda: len(self.store.patches) >= count, f"{count} patches")
        return {path.rpartition("/")[2]: body for path, body in self.store.patches}


@pytest.fixture
def seen(store: Store, tmp_path: Path) -> Seen:
    return Seen(store, tmp_path)


def child(store: Store, attempt: int = 0) -> dict[str, Any]:
    labels = {"torchnet/run": RUN, "jobset.sigs.k8s.io/restart-attempt": str(attempt)}
    meta = {"name": JOB_NAME, "namespace": NAMESPACE, "labels": labels}
    return store.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {}})


def silent(rank: int) -> dict[str, Any]:
    """A pod on a lost node; its Job keeps it."""
    body = pod(rank, phase="Running", worker=running(), attempt=0)
    owner = {"kind": "Job", "name": JOB_NAME, "controller": True}
    other = {"kind": "Other", "name": "other"}
    body["metadata"] |= {
        "deletionTimestamp": "2026-01-01T00:01:00Z",
        "deletionGracePeriodSeconds": 30,
        "ownerReferences": [owner, other],
        "finalizers": ["batch.kubernetes.io/job-tracking", "example.com/other"],
    }
    return body


def test_the_next_start_is_told_once_with_what_was_lost(seen: Seen) -> None:
    seen.gang.listed([pod(0, phase="Running", worker=running(), attempt=0), LOST])
    assert seen.again.look(100.0, 25.0) is None
    assert not seen.again.begun(0)
    # The JobSet deletes all of them: which one was lost can be seen no more.
    stopped = message(0, 143, failure=failure("interrupted", 143, text="stopped by SIGTERM"))
    gone = [ended(0, 143, stopped, attempt=0, version=2), ended(1, 143, stopped, attempt=0, version=2)]
    for one in gone:
        one["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    seen.gang.listed(gone)
    seen.again.look(101.0, 25.0)
    assert seen.again.begun(1)
    assert not seen.again.begun(1)
    (text,) = seen.told
    assert text.startswith(f"the gang starts again (restart 1): lost {RUN}-1 (node rank 1 on node1)")
    assert (seen.again.attempt, seen.again.workers) == (1, {})
    assert seen.store.patches == []


def test_a_gang_that_does_not_end_is_told_to_fail_once_and_then_given_up(seen: Seen) -> None:
    made = child(seen.store)
    seen.gang.listed([pod(0, phase="Running", worker=running(), attempt=0), LOST])
    for now in (100.0, 124.0, 126.0, 127.0, 155.0):
        assert seen.again.look(now, 25.0) is None
    body = {"metadata": {"uid": made["metadata"]["uid"]}, "spec": {"activeDeadlineSeconds": 1}}
    assert seen.patched(1) == {JOB_NAME: body}
    stuck = seen.again.look(157.0, 25.0)
    assert stuck is not None
    assert (stuck.code, f"lost {RUN}-1" in stuck.text) == (70, True)
    assert len(seen.store.patches) == 1


def test_workers_that_end_by_themselves_have_their_time(seen: Seen) -> None:
    child(seen.store)
    seen.gang.listed([pod(0, phase="Running", worker=running(), attempt=0), LOST])
    for now in (100.0, 124.0):
        seen.again.look(now, 25.0)
    assert seen.store.wanted("GET", f"/jobs/{JOB_NAME}") == 0


def test_the_job_of_another_start_is_not_told_to_fail(seen: Seen) -> None:
    child(seen.store, attempt=1)
    seen.gang.listed([pod(0, phase="Running", worker=running(), attempt=0), LOST])
    for now in (100.0, 126.0):
        seen.again.look(now, 25.0)
    until(lambda: seen.store.wanted("GET", f"/jobs/{JOB_NAME}"), "a look at the Job")
    time.sleep(0.2)  # in which it would be told
    assert seen.store.patches == []


def test_a_job_that_is_suspended_meanwhile_is_not_told_to_fail(seen: Seen) -> None:
    """It would have a second when it is resumed."""
    child(seen.store)["spec"] = {"suspend": True}
    seen.gang.listed([pod(0, phase="Running", worker=running(), attempt=0), LOST])
    for now in (100.0, 126.0):
        seen.again.look(now, 25.0)
    until(lambda: seen.store.wanted("GET", f"/jobs/{JOB_NAME}"), "a look at the Job")
    time.sleep(0.2)  # in which it would be told
    assert seen.store.patches == []
    seen.again.forget()
    assert seen.again.look(200.0, 25.0) is None, "its time begins anew"


def test_a_pod_on_a_silent_node_is_taken_from_its_job_and_stays(seen: Seen) -> None:
    """At once, with whatever others have put on it."""
    child(seen.store)
    lost = silent(1)
    seen.store.put(lost)
    seen.gang.listed([pod(0, phase="Running", worker=running(), attempt=0), lost])
    for now in (100.0, 136.0, 137.0):
        seen.leaving.look(seen.again.workers, now)
        assert seen.again.look(now, 25.0) is None
    found = seen.patched(2)
    assert found[JOB_NAME]["spec"] == {"activeDeadlineSeconds": 1}
    assert found[lost["metadata"]["name"]]["metadata"] == {
        "resourceVersion": lost["metadata"]["resourceVersion"],
        "ownerReferences": [{"kind": "Other", "name": "other"}],
        "finalizers": ["example.com/other"],
    }
    assert seen.store.deleted == []
    assert seen.again.begun(1)
    assert "its node does not say that it has ended" in seen.told[0]
    # It hangs on, and is nothing to the next start.
    seen.leaving.look(seen.gang.workers(), 200.0)
    assert seen.again.look(200.0, 25.0) is None
    assert not seen.leaving.unheard
    assert len(seen.store.patches) == 2


def test_who_may_not_do_that_is_told(seen: Seen) -> None:
    child(seen.store)
    seen.store.faults = [("PATCH", "/jobs/", forbidden("jobs"))]
    seen.gang.listed([pod(0, phase="Running", worker=running(), attempt=0), LOST])
    for now in (100.0, 126.0):
        seen.again.look(now, 25.0)
    until(lambda: seen.problems, "the problem")
    assert "the gang cannot be started again" in seen.problems[0]


def test_where_no_start_is_left_and_all_is_to_stay_no_job_is_told_to_fail(store: Store, seen: Seen) -> None:
    """It would delete the pods that still run."""
    child(store)
    seen.gang.listed([pod(0, phase="Running", worker=running(), attempt=0), LOST])
    assert seen.again.look(100.0, 25.0, last=True) is None  # they have their time
    found = seen.again.look(126.0, 25.0, last=True)
    assert found is not None
    assert found.kind == "lost"
    assert store.patches == []


def test_a_pod_that_others_change_meanwhile_is_released_all_the_same(store: Store, seen: Seen) -> None:
    """Its lists are replaced whole: what somebody else has put into them must not be lost."""
    body = store.put(silent(1))
    answers: list[Answer] = [(409, {}, {"reason": "Conflict", "message": "the object has been modified"})] * 2
    store.faults = [("PATCH", "/pods/", one) for one in answers]
    seen.gang.listed([body])
    workers = seen.gang.workers()
    seen.leaving.look(workers, 0.0)
    seen.leaving.look(workers, 100.0)
    seen.again.look(100.0, 25.0)
    until(lambda: store.wanted("PATCH", "/pods/") >= 2, "two tries")
    store.faults = []
    until(lambda: any("/pods/" in path for path, _ in store.patches), "the patch")
    (patch,) = [body for path, body in store.patches if "/pods/" in path]
    assert patch["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
