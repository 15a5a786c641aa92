"""Runs that are suspended, resumed and evicted while a launcher watches them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_store import Store, forbidden, stamp, storing
from tests.unit.aside import interrupt, until
from tests.unit.k8s.run.test_monitor import ATTACHED, Watched, asked, plain
from tests.unit.kubernetes_objects import (
    RUN,
    ended,
    facts,
    failure,
    job,
    message,
    pod,
    running,
    terminated,
)
from torchnet.k8s.client.kinds import JOBSET
from torchnet.k8s.run import monitor, queue_status, start_clock
from torchnet.k8s.run.monitor import RunOptions
from torchnet.k8s.run.run_info import RunInfo
from torchnet.signals import Signals

store = pytest.fixture(storing)
QUEUE = {"kueue.x-k8s.io/queue-name": "team-a"}
LOST = failure("lost", 70, text=f"lost {RUN}-0")
TRAINS = {"phase": "Running", "prepare": terminated(0), "worker": running()}
PREPARES = {"prepare": running()}


@pytest.fixture
def watched(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Without patience for workers that have failed: what is decided wrongly is decided at once."""
    for name in ("PATIENCE_SECONDS", "_START_FAILURE_SECONDS"):
        monkeypatch.setattr(monitor, name, 0.0)
    with Signals() as signals:
        yield Watched(store, tmp_path, signals)


class Workload:
    """A Job or a JobSet of two workers, and what its controllers do with it."""

    def __init__(self, store: Store, stage: dict[str, Any], *, jobset: bool = False) -> None:
        self.store, self.facts = store, facts(2, jobset=jobset)
        self._number = 0
        self.job = store.put(job(2) | ({"apiVersion": JOBSET.api, "kind": JOBSET.name} if jobset else {}))
        if jobset:
            store.put(job(2) | {"metadata": job(2)["metadata"] | {"name": f"{RUN}-w-0", "labels": {}}})
        self.create(stage)

    def _put(self, rank: int, **more: Any) -> dict[str, Any]:
        uid = f"{self._number}-{rank}"
        made = pod(rank, uid=uid, made=stamp(time.time()), attempt=0 if self.facts.restarts else None, **more)
        return self.store.put(made)

    def create(self, stage: dict[str, Any]) -> None:
        self._number += 1
        self._pods = [self._put(rank, **stage) for rank in range(2)]

    def _changed(self, rank: int, status: dict[str, Any]) -> None:
        one = self._pods[rank]
        body = one | {"status": one["status"] | status}
        body["metadata"] = one["metadata"] | {
            "resourceVersion": str(int(one["metadata"]["resourceVersion"]) + 100),
            "deletionTimestamp": stamp(time.time() + 30),
            "deletionGracePeriodSeconds": 30,
        }
        self._pods[rank] = self.store.put(body)

    def suspend(self) -> None:
        """At once, as a launcher that was busy sees it: its pods have ended by then, and told what they met."""
        self.mark(suspended=True)
        for rank, why in enumerate((failure("interrupted", 143), LOST)):
            text = message(rank, why["code"], failure=why)
            done = [{"name": "worker", "state": terminated(why["code"], text)}]
            self._changed(rank, {"phase": "Failed", "containerStatuses": done})

    def collect(self) -> None:
        """The deleted pods are gone."""
        for path in [path for path in self.store.objects if "/pods/" in path]:
            del self.store.objects[path]

    def resume(self) -> None:
        self.mark(suspended=False)
        self.collect()

    def mark(self, *, suspended: bool) -> None:
        self.job["spec"] = {"suspend": suspended}
        condition = {"type": "Suspended", "status": str(suspended), "lastTransitionTime": stamp(time.time())}
        self.job["status"] = {"conditions": [condition]}

    def succeed(self) -> None:
        """The next attempt trains, and ends well; the pods of earlier ones are gone."""
        self.collect()
        self.create(TRAINS)
        time.sleep(0.5)
        for rank in range(2):
            text = message(rank, 0, job={"exit_code": 0, "reason": "done"} if rank == 0 else None)
            self._put(rank, phase="Succeeded", prepare=terminated(0), worker=terminated(0, text))
        self.job["status"]["conditions"].append({"type": "Completed", "status": "True"})


def waits(watched: Watched, text: str = "is suspended until", count: int = 1) -> Callable[[], None]:
    return lambda: until(lambda: watched.err.getvalue().count(text) >= count)


@pytest.mark.parametrize("jobset", [False, True], ids=["Job", "JobSet"])
@pytest.mark.parametrize("stage", [PREPARES, TRAINS], ids=["preparing", "training"])
@pytest.mark.parametrize("options", [RunOptions(grace=0), ATTACHED], ids=["launch", "attach"])
def test_a_suspended_run_goes_on_with_its_next_attempt(
    store: Store, watched: Watched, stage: dict[str, Any], options: RunOptions, jobset: bool
) -> None:
    one = Workload(store, stage, jobset=jobset)
    steps = asked(store, "watch=true"), one.suspend, waits(watched), 1.0, one.collect, 1.0
    outcome = watched.run(one.facts, options, *steps, one.resume, 0.5, one.succeed)
    assert outcome.receipt is not None, outcome
    assert (outcome.code, outcome.receipt["failure"], outcome.receipt["restarts"]) == (0, None, 0)
    assert (store.deleted, store.patches) == ([], [])
    said = watched.err.getvalue()
    assert said.count("is suspended until its spec.suspend is set to false") == 1, said
    assert said.count("is resumed: attempt 2 starts") == 1, said
    assert "lost" not in said
    ((number, receipt),) = watched.attempts
    assert (number, receipt["exit_code"], receipt["reason"]) == (1, 143, "attempt 1 was suspended")


def test_a_resumption_that_the_controller_has_not_noted_ends_nothing(store: Store, watched: Watched) -> None:
    """spec.suspend is false already, and the condition Suspended still true."""
    one = Workload(store, TRAINS)

    def half_resumed() -> None:
        one.suspend()
        one.job["spec"] = {"suspend": False}

    steps = asked(store, "watch=true"), half_resumed, 1.0, one.resume, 0.5, one.succeed
    outcome = watched.run(one.facts, RunOptions(grace=0), *steps)
    assert (outcome.code, store.deleted) == (0, []), watched.err.getvalue()
    assert watched.err.getvalue().count("is resumed") == 1


def test_a_worker_that_ended_before_the_suspension_is_named(store: Store, watched: Watched) -> None:
    """A Job does not create its index again, so the others of the next attempt wait for it in vain."""
    one = Workload(store, TRAINS)

    def partly_suspended() -> None:
        one._pods[0] = one._put(
            0, phase="Succeeded", prepare=terminated(0), worker=terminated(0, message(0, 0))
        )
        one.mark(suspended=True)
        one._changed(1, {"phase": "Failed"})

    def resumed() -> None:
        one.mark(suspended=False)
        one._number += 1
        one._put(1, **TRAINS)

    steps = asked(store, "watch=true"), partly_suspended, waits(watched), resumed
    watched.run(one.facts, ATTACHED, *steps, waits(watched, "ended before the suspension"), interrupt)
    assert f"{one.facts.node(0)} ended before" in watched.err.getvalue()


def test_a_run_may_be_suspended_twice_and_waits_by_no_clock(store: Store, watched: Watched) -> None:
    one = Workload(store, PREPARES)
    # The second time each takes longer than the deadlines that were set for starting and for all.
    again = one.resume, lambda: one.create(TRAINS), waits(watched, "is resumed"), one.suspend
    steps = asked(store, "watch=true"), one.suspend, waits(watched), 3.0, *again, waits(watched, count=2), 3.0
    options = RunOptions(grace=0, start_timeout=2.5, timeout=4.0)
    outcome = watched.run(one.facts, options, *steps, one.resume, one.succeed)
    assert outcome.code == 0, watched.err.getvalue()
    assert store.deleted == []
    assert [number for number, _ in watched.attempts] == [1, 2]
    assert "attempt 3 starts" in watched.err.getvalue()


def test_a_queue_before_the_first_start_counts_for_no_timeout(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    one.mark(suspended=True)
    one.collect()
    options = RunOptions(grace=0, start_timeout=2.0, timeout=2.5)
    steps = asked(store, "watch=true"), waits(watched), 4.0, partial(one.mark, suspended=False), one.succeed
    outcome = watched.run(replace(one.facts, queue="team-a"), options, *steps)
    assert outcome.code == 0, watched.err.getvalue()


def test_what_the_queue_says_is_said(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    one.job["metadata"]["labels"] |= QUEUE

    def preempted() -> None:
        one.suspend()
        one.job["status"]["conditions"][0]["message"] = "Preempted to accommodate a higher priority"

    watched.run(one.facts, ATTACHED, asked(store, "watch=true"), preempted, waits(watched), interrupt)
    said = watched.err.getvalue()
    assert "until its queue team-a admits it (Preempted to accommodate a higher priority)" in said


KUEUE = "/apis/kueue.x-k8s.io"
PREEMPTED = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "to accommodate another"}


def kueue(store: Store, *conditions: dict[str, Any], evicted: int = 0, active: bool = True) -> None:
    """Kueue's API, with one Workload; what it says can be changed by another call."""
    stats = {"evictions": [{"reason": "Preempted", "underlyingCause": "", "count": evicted}]}
    body = {"metadata": {"name": "w"}, "status": {"conditions": list(conditions), "schedulingStats": stats}}
    body |= {"spec": {"active": active}}
    store.faults = [
        ("GET", f"{KUEUE}$", (200, {}, {"preferredVersion": {"version": "v1beta1"}})),
        ("GET", f"{KUEUE}/v1beta1/namespaces/[^/]+/workloads[?]", (200, {}, {"items": [body]})),
        ("GET", f"{KUEUE}/v1beta1/namespaces/[^/]+/workloads/w$", (200, {}, body)),
    ]


def test_kueues_reason_is_in_the_attempts_receipt(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_status, "READ_SECONDS", 0.05)
    one = Workload(store, PREPARES)
    info = replace(one.facts, queue="team-a", uid="the-job")
    kueue(store, {"type": "Admitted", "status": "True", "reason": "Admitted"})
    admitted = waits(watched, "Kueue: Admitted")
    preempted = (
        one.suspend,
        lambda: kueue(store, PREEMPTED),
        waits(watched, "Kueue: Evicted (Preempted): to acc"),
    )
    steps = asked(store, "watch=true"), admitted, *preempted, one.resume, 0.5, one.succeed
    outcome = watched.run(info, RunOptions(grace=0), *steps)
    assert outcome.code == 0, watched.err.getvalue()
    ((_, receipt),) = watched.attempts
    assert receipt["reason"].startswith(
        "attempt 1 was suspended by its queue: Kueue: Evicted (Preempted): to acc"
    )


def test_attach_knows_the_attempt_from_kueue(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    info = replace(one.facts, queue="team-a", uid="the-job")
    kueue(store, evicted=2)
    watched.run(info, ATTACHED, waits(watched, "this is attempt 3"), one.suspend, waits(watched), interrupt)
    assert "this is attempt 3" in watched.err.getvalue()


@pytest.mark.parametrize("seen", ["before their deletion", "terminating", "terminating, admitted again"])
def test_attach_during_a_preemption_counts_that_attempt_once(
    store: Store, watched: Watched, seen: str
) -> None:
    """Kueue counts an eviction before the Job's controller deletes the pods."""
    one = Workload(store, TRAINS)
    info = replace(one.facts, queue="team-a", uid="the-job")
    kueue(store, *([] if "again" in seen else [PREEMPTED]), evicted=3)
    if seen == "before their deletion":
        steps: tuple[Any, ...] = waits(watched, "this is attempt 3"), one.suspend, waits(watched)
    else:
        one.suspend()
        steps = (waits(watched, "this is attempt 4"),)
    if "again" in seen:
        time.sleep(1.1)
        one.mark(suspended=False)
    resume = one.collect if "again" in seen else one.resume
    steps = *steps, resume, lambda: one.create(TRAINS), waits(watched, "is resumed"), 0.5
    outcome = watched.run(info, ATTACHED, *steps, one.succeed)
    assert outcome.code == 0, watched.err.getvalue()
    assert "is resumed: attempt 4 starts" in watched.err.getvalue()
    assert [number for number, _ in watched.attempts] == [3]


def test_attach_without_the_right_to_read_it_counts_no_attempts(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    info = replace(one.facts, queue="team-a", uid="the-job")
    kueue(store)
    store.faults[1] = (*store.faults[1][:2], forbidden("workloads"))
    steps = (
        waits(watched, "cannot read what Kueue reports"),
        0.3,
        one.suspend,
        waits(watched),
        one.resume,
        0.5,
    )
    assert watched.run(info, ATTACHED, *steps, one.succeed).code == 0
    assert "is resumed: the next attempt starts" in watched.err.getvalue()
    ((_, receipt),) = watched.attempts
    assert receipt["reason"] == "the attempt was suspended"


@pytest.mark.parametrize("when", ["queued", "preempted"])
def test_a_run_that_kueue_has_deactivated_is_left(
    store: Store, watched: Watched, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing admits it by itself, and nobody may be there to press Ctrl-C."""
    monkeypatch.setattr(queue_status, "READ_SECONDS", 0.05)
    one = Workload(store, TRAINS)
    info = replace(one.facts, queue="team-a", uid="the-job")
    kueue(store)
    steps: tuple[Any, ...] = ()
    if when == "queued":
        one.mark(suspended=True)
        one.collect()
    else:
        steps = one.suspend, waits(watched), one.collect

    def deactivate() -> None:
        kueue(store, PREEMPTED | {"reason": "Deactivated"}, active=False)

    outcome = watched.run(info, RunOptions(grace=0), asked(store, "watch=true"), *steps, 0.5, deactivate)
    assert outcome.receipt is not None
    assert (outcome.receipt["failure"]["kind"], outcome.code, outcome.stopped) == ("interrupted", 143, False)
    assert "kubectl patch workloads.kueue.x-k8s.io w -n ml --type merge" in outcome.left
    assert (store.deleted, store.patches) == ([], [])
    assert len(watched.attempts) == (when == "preempted")


def test_attach_goes_on_watching_a_run_that_kueue_has_deactivated(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    one.mark(suspended=True)
    one.collect()
    kueue(store, PREEMPTED, active=False)
    info = replace(one.facts, queue="team-a", uid="the-job")
    outcome = watched.run(info, ATTACHED, waits(watched, "Kueue: Evicted"), 0.5, interrupt)
    assert outcome.left == "the job keeps running"


def test_ctrl_c_before_the_next_attempt_leaves_the_last_ones_pods_their_time(
    store: Store, watched: Watched
) -> None:
    """They may save a checkpoint."""
    one = Workload(store, TRAINS)
    store.lingers = 1
    steps = asked(store, "watch=true"), one.suspend, waits(watched), 0.3, interrupt
    assert watched.run(one.facts, RunOptions(), *steps).code == 130
    assert store.wanted("DELETE", "gracePeriodSeconds=1") == 0


@pytest.mark.parametrize(("queue", "awaited"), [("team-a", "its queue"), ("", "its resumption")])
def test_what_a_suspended_run_has_waited_for_is_said(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch, queue: str, awaited: str
) -> None:
    monkeypatch.setattr(start_clock, "FIRST_PROGRESS_SECONDS", 0.5)
    one = Workload(store, PREPARES)
    steps = asked(store, "watch=true"), one.suspend, waits(watched), waits(watched, "no timeout"), interrupt
    watched.run(replace(one.facts, queue=queue), ATTACHED, *steps)
    assert f" s for {awaited}, which counts for no timeout" in watched.err.getvalue()


@pytest.mark.parametrize("jobset", [False, True], ids=["Job", "JobSet"])
def test_a_run_that_somebody_deletes_in_its_queue_was_interrupted(
    store: Store, watched: Watched, jobset: bool
) -> None:
    one = Workload(store, TRAINS, jobset=jobset)
    one.mark(suspended=True)
    one.collect()
    waiting = waits(watched)
    outcome = watched.run(one.facts, RunOptions(), asked(store, "watch=true"), waiting, store.objects.clear)
    assert outcome.receipt is not None
    assert (outcome.code, outcome.receipt["failure"]["kind"]) == (143, "interrupted")
    assert outcome.receipt["reason"] == f"the {one.facts.kind.name} was deleted before it started"


def test_pods_that_go_one_by_one_are_one_attempt(store: Store, watched: Watched) -> None:
    """The last one only after the resumption, as on a slow node."""
    one = Workload(store, TRAINS)

    def half() -> None:
        one.mark(suspended=True)
        gone = message(0, 143, failure=failure("interrupted", 143))
        done = [{"name": "worker", "state": terminated(143, gone)}]
        one._changed(0, {"phase": "Failed", "containerStatuses": done})

    def rest() -> None:
        one._changed(1, {"phase": "Failed"})

    steps = asked(store, "watch=true"), half, waits(watched), 0.5, rest, 0.5, one.resume, 0.5, one.succeed
    outcome = watched.run(one.facts, RunOptions(grace=0), *steps)
    assert outcome.code == 0, watched.err.getvalue()
    assert [number for number, _ in watched.attempts] == [1]
    assert "attempt 2 starts" in watched.err.getvalue()


def test_ctrl_c_stops_and_removes_a_suspended_run(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    steps = asked(store, "watch=true"), one.suspend, waits(watched), one.collect, interrupt
    outcome = watched.run(one.facts, RunOptions(), *steps)
    assert (outcome.code, outcome.stopped) == (130, True)
    assert store.names() == []


def test_a_suspended_run_that_somebody_deletes_has_an_end(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    steps = asked(store, "watch=true"), one.suspend, waits(watched), store.objects.clear
    outcome = watched.run(one.facts, ATTACHED, *steps)
    assert outcome.receipt is not None
    assert (outcome.code, outcome.receipt["reason"]) == (143, "the Job was deleted before attempt 2 started")


def test_a_suspension_that_nobody_saw_is_none_of_the_next_attempts_failures(
    store: Store, watched: Watched
) -> None:
    """The launcher was asleep: the first attempt's pods are gone without a trace, and others are there."""
    one = Workload(store, TRAINS)
    slept = 1.1, one.resume, lambda: one.create(TRAINS)
    steps = asked(store, "watch=true"), *slept, waits(watched, "is resumed"), 0.5, one.succeed
    outcome = watched.run(one.facts, RunOptions(grace=0), *steps)
    assert outcome.code == 0, watched.err.getvalue()
    assert store.deleted == []


def test_a_pod_that_is_lost_while_nothing_is_suspended_ends_the_run(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    one.job["status"] = {"conditions": [{"type": "Suspended", "status": "False"}]}
    killed = {"phase": "Failed", "containerStatuses": [{"name": "worker", "state": terminated(137)}]}
    outcome = watched.run(
        one.facts, RunOptions(grace=1), asked(store, "watch=true"), lambda: one._changed(1, killed)
    )
    assert outcome.code == 70
    assert store.names() == []


def test_who_may_not_read_the_workload_is_told_once(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    store.faults = [("GET", f"/jobs/{RUN}$", forbidden("jobs"))]
    outcome = watched.run(one.facts, ATTACHED, asked(store, "watch=true"), one.suspend)
    assert outcome.code != 0
    assert watched.err.getvalue().count(f"cannot determine whether {RUN} is suspended") == 1


def test_signals_are_heard_while_the_workload_cannot_be_read(store: Store, watched: Watched) -> None:
    one = Workload(store, TRAINS)
    store.faults = [("GET", f"/jobs/{RUN}$", (503, {}, {"message": "busy"}))]
    began = time.monotonic()
    steps = asked(store, "watch=true"), one.suspend, asked(store, f"/jobs/{RUN}$"), interrupt
    assert watched.run(one.facts, RunOptions(), *steps).code == 130
    assert time.monotonic() - began < 8


def group(store: Store, **more: Any) -> RunInfo:
    for rank in range(2):
        body = plain(rank, **more)
        body["metadata"]["labels"] |= QUEUE | {"kueue.x-k8s.io/pod-group-name": RUN}
        store.put(body)
    return facts(2, pods=True)


@pytest.mark.parametrize("options", [RunOptions(grace=0), ATTACHED], ids=["launch", "attach"])
def test_an_evicted_group_of_plain_pods_is_left(store: Store, watched: Watched, options: RunOptions) -> None:
    """Rank 1's agent has seen rank 0 go, and has ended before its own pod was deleted."""
    known = group(store, **TRAINS)
    target = {
        "type": "TerminationTarget",
        "status": "True",
        "reason": "WorkloadEvictedDueToPreempted",
        "message": "to accommodate another",
    }

    def evict() -> None:
        first = pod(0)["status"]["conditions"]
        gone = message(0, 143, failure=failure("interrupted", 143))
        for body in (
            ended(0, 143, gone, conditions=[*first, target], version=9),
            ended(1, 70, message(1, 70, failure=LOST), version=9),
        ):
            rank = int(body["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])
            body["metadata"] |= {"name": f"{RUN}-{rank}"}
            store.put(body)

    outcome = watched.run(known, options, asked(store, "watch=true"), evict)
    assert outcome.receipt is not None
    assert (outcome.receipt["failure"]["kind"], outcome.code, outcome.stopped) == ("interrupted", 143, False)
    assert "WorkloadEvictedDueToPreempted: to accommodate another" in outcome.left
    assert len(store.names()) == 2
    assert (store.deleted, store.patches) == ([], [])


def test_a_group_that_is_deleted_behind_its_gates_is_not_called_evicted(
    store: Store, watched: Watched
) -> None:
    """Anybody may have deleted it, `torchnet down` too: it has a receipt, and what is left of it is removed."""
    gated = {"status": "False", "reason": "SchedulingGated"}
    known = group(store, scheduled=gated)
    outcome = watched.run(known, RunOptions(grace=0), asked(store, "watch=true"), 0.5, store.objects.clear)
    assert outcome.receipt is not None
    assert outcome.code == 70
    assert "evicted" not in str(outcome.receipt["failure"])
