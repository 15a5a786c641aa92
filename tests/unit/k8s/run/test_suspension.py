"""What a workload says of its suspension, and whose ends a suspension explains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import client
from tests.unit.api_store import Store, stamp, storing
from tests.unit.k8s.run.test_monitor import plain
from tests.unit.kubernetes_objects import NAMESPACE, ended, failure, job, message, pod, running, terminated
from torchnet.k8s.run.listing import RunRow, table
from torchnet.k8s.run.suspension import Suspension, evicted, suspension

store = pytest.fixture(storing)
RESUMED = 1_767_225_600.0  # 2026-01-01T00:00:00Z
QUEUE = {"kueue.x-k8s.io/queue-name": "team-a"}


def deleted(body: dict[str, Any], at: float, grace: int = 30) -> dict[str, Any]:
    """As the API shows a deletion that is requested at this time: with the end of its grace period."""
    body["metadata"] |= {"deletionTimestamp": stamp(at + grace), "deletionGracePeriodSeconds": grace}
    return body


def condition(kind: str, status: str = "True", **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, **more}]}


@pytest.mark.parametrize(
    ("body", "gone", "active", "resumed"),
    [
        (pod(0), False, False, False),
        # Without the time of a deletion, that of the container's start counts.
        (pod(0, made=stamp(RESUMED - 100)), True, True, False),
        (pod(0, made=stamp(RESUMED - 100), prepare=running(stamp(RESUMED - 50))), True, True, True),
        (pod(0, made=stamp(RESUMED - 3), prepare=terminated(0), worker=running()), True, True, False),
        (pod(0, made=stamp(RESUMED - 3), prepare=running()), True, True, False),
        (deleted(pod(0), RESUMED - 1), False, True, True),
        (deleted(pod(0), RESUMED - 1), True, True, True),
        # The Job controller creates pods before it notes the resumption: those count by the time of their deletion.
        (deleted(pod(0, made=stamp(RESUMED - 3)), RESUMED + 60), False, True, False),
        (deleted(pod(0, made=stamp(RESUMED - 3)), RESUMED + 60), True, True, False),
        (ended(0, 42), False, False, False),
    ],
)
def test_a_suspension_has_ended_what_was_deleted_before_the_resumption(
    body: dict[str, Any], gone: bool, active: bool, resumed: bool
) -> None:
    after = Suspension(resumed=RESUMED + 1 if body["metadata"].get("deletionTimestamp") else RESUMED - 1)
    assert Suspension(active=True).ended(body, gone=gone) is active
    assert after.ended(body, gone=gone) is resumed
    assert not Suspension().ended(body, gone=gone), "of a workload that was never suspended"


@pytest.mark.parametrize(
    ("status", "active"),
    [
        ({}, True),
        (condition("Suspended", message="Job suspended"), True),
        (condition("Failed", "False"), True),
        (condition("Failed"), False),
        (condition("Complete"), False),
        (condition("Completed"), False),
    ],
)
def test_what_has_come_to_its_end_is_suspended_no_more(status: dict[str, Any], active: bool) -> None:
    found = suspension(job() | {"spec": {"suspend": True}, "status": status})
    assert (found.active, found.message, found.state) == (active, "", "suspended")


def test_a_resumption_has_a_time() -> None:
    stamped = {"lastTransitionTime": stamp(RESUMED)}
    assert suspension(job() | {"status": condition("Suspended", "False", **stamped)}).resumed == RESUMED
    early = suspension(job() | {"status": condition("Suspended", "True", **stamped)})
    assert (early.resumed, early.active) == (0.0, True), "the controller has not noted the resumption yet"


def test_who_evicts_a_group_of_pods_says_why() -> None:
    target = condition("TerminationTarget", reason="WorkloadEvictedDueToPreempted", message="for\nanother")
    gated = condition("PodScheduled", "False", reason="SchedulingGated")
    assert evicted([pod(0), pod(1) | {"status": target}]).endswith("Preempted: for another")
    assert evicted([pod(0) | {"status": gated}]) == "", "a gate is no eviction"


def row(store: Store, folder: Path) -> RunRow:
    (found,) = table(client(store, folder), NAMESPACE).rows
    return found


def test_status_of_a_suspended_run_and_of_its_next_attempt(store: Store, tmp_path: Path) -> None:
    body = store.put(job(2) | {"spec": {"suspend": True}})
    why = failure("interrupted", 143)
    owners = {"ownerReferences": [{"kind": "Job", "controller": True}]}
    for rank in range(2):
        one = deleted(ended(rank, 143, message(rank, 143, failure=why), uid=f"old-{rank}"), RESUMED - 10)
        one["metadata"] |= owners
        store.put(one)
    found = row(store, tmp_path)
    assert (found.state, found.exit_code) == ("suspended", None)
    body["metadata"]["labels"] |= QUEUE
    assert row(store, tmp_path).state == "queued"
    body |= {"spec": {}, "status": condition("Suspended", "False", lastTransitionTime=stamp(RESUMED))}
    found = row(store, tmp_path)
    assert (found.state, found.exit_code) == ("starting", None), "the last attempt's ends are not the run's"
    for rank in range(2):
        one = pod(rank, uid=f"new-{rank}", made=stamp(RESUMED), phase="Running", worker=running())
        one["metadata"] |= owners
        store.put(one)
    assert (row(store, tmp_path).state, row(store, tmp_path).ready) == ("running", 2)


def test_status_of_an_evicted_group(store: Store, tmp_path: Path) -> None:
    target = condition("TerminationTarget", reason="WorkloadEvictedDueToPreempted")["conditions"]
    for rank in range(2):
        body = plain(rank, phase="Failed", worker=ended(rank, 143)["status"]["containerStatuses"][0]["state"])
        body["status"]["conditions"] += target
        body["metadata"]["annotations"] = job(2)["metadata"]["annotations"]
        store.put(deleted(body, RESUMED))
    found = row(store, tmp_path)
    assert (found.state, found.reason, found.exit_code) == ("evicted", "WorkloadEvictedDueToPreempted", None)
