"""What Kueue says of a run: which of its conditions are shown, when, and to whom they may not be shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import until
from tests.unit.api_answers import Answer, Server, client, serving
from tests.unit.kubernetes_objects import NAMESPACE, RUN, facts
from torchnet.k8s.run import queue_status
from torchnet.k8s.run.queue_status import QueueStatus, condition_texts, evictions, queue_state

server = pytest.fixture(serving)
KNOWN = replace(facts(2), uid="the-job", queue="team-a")
GROUP = {"preferredVersion": {"version": "v1beta2"}}
PREEMPTED = (
    "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization in the ClusterQueue"
)
PENDING = (
    "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor f, 1 more needed"
)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def workload(*conditions: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "job-x-1"}, "status": {"conditions": list(conditions), **status}}


WAITS = condition("QuotaReserved", "False", "Pending", PENDING)
ADMITTED = condition("Admitted", "True", "Admitted", "The workload is admitted")
EVICTED = condition("Evicted", "True", "Preempted", PREEMPTED)
COUNTED = {
    "schedulingStats": {"evictions": [{"reason": "Preempted", "count": 2}, {"reason": "x", "count": 1}]}
}


def test_conditions_are_shown_in_kueues_own_words() -> None:
    assert condition_texts(workload(WAITS)) == {
        "QuotaReserved": f"Kueue: not QuotaReserved (Pending): {PENDING}"
    }
    assert condition_texts(workload(ADMITTED)) == {"Admitted": "Kueue: Admitted: The workload is admitted"}
    both = condition_texts(workload(WAITS, EVICTED, condition("PodsReady", "False", "WaitForStart")))
    assert list(both) == ["Evicted", "QuotaReserved"], "in the order in which they come about"
    over = condition("Evicted", "False", "QuotaReserved", f"Previously: {PREEMPTED}")
    assert list(condition_texts(workload(over, ADMITTED))) == ["Admitted"]
    assert condition_texts({}) == condition_texts({"status": {}}) == {}


def test_admission_checks_are_shown_until_the_admission() -> None:
    checks = [{"name": "nodes", "state": "Pending", "message": "a ProvisioningRequest was created"}]
    reserved = condition("QuotaReserved", "True", "QuotaReserved")
    told = condition_texts(workload(reserved, admissionChecks=checks))
    assert list(told.values()) == [
        "Kueue: admission check nodes (Pending): a ProvisioningRequest was created"
    ]
    assert list(condition_texts(workload(reserved, ADMITTED, admissionChecks=checks))) == ["Admitted"]


def test_what_others_wrote_is_printable_and_has_an_end() -> None:
    (text,) = condition_texts(workload(condition("Evicted", "True", "x\x1b[31m", "a\n" * 9999))).values()
    assert text.isprintable()
    assert len(text) < 450


def test_evictions_are_counted_and_the_state_follows() -> None:
    assert evictions(workload()) == 0
    assert evictions(workload(**COUNTED)) == 3
    assert queue_state(workload(WAITS))[0] == "queued"
    assert queue_state(workload(WAITS, **COUNTED)) == (
        "preempted",
        f"Kueue: not QuotaReserved (Pending): {PENDING}",
    )
    assert queue_state(workload(ADMITTED, **COUNTED)) == ("", "")


@pytest.fixture
def status(server: Server, tmp_path: Path) -> QueueStatus:
    return QueueStatus(client(server, tmp_path), KNOWN)


class Kueue:
    """Its API: answers by path."""

    def __init__(self, server: Server) -> None:
        self.server, self.body = server, workload(WAITS)
        self.group: Answer = (200, {}, GROUP)
        self.refused: Answer | None = None
        server.answer = self._answer  # type: ignore[method-assign]

    def _answer(self, method: str, path: str, said: bytes) -> Answer:
        if path == "/apis/kueue.x-k8s.io":
            return self.group
        if self.refused is not None:
            return self.refused
        assert path.startswith(f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/workloads")
        if path.endswith("/workloads/job-x-1"):
            return 200, {}, self.body
        assert path.endswith("labelSelector=kueue.x-k8s.io%2Fjob-uid%3Dthe-job"), path
        return 200, {}, {"items": [self.body]}


def told(status: QueueStatus, count: int = 1, clock: Callable[[], float] = time.monotonic) -> list[str]:
    lines: list[str] = []

    def enough() -> bool:
        lines.extend(status.changes(clock()))
        return len(lines) >= count

    until(enough, "Kueue's words", 10, 0.01)
    return lines


def test_the_workload_is_found_by_its_jobs_uid_and_then_read_by_its_name(
    server: Server, status: QueueStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_status, "READ_SECONDS", 0.01)
    kueue = Kueue(server)
    assert told(status) == [f"Kueue: not QuotaReserved (Pending): {PENDING}"]
    assert status.is_read
    kueue.body = workload(ADMITTED, **COUNTED)
    assert told(status) == ["Kueue: Admitted: The workload is admitted"]
    assert (status.evictions, status.eviction) == (3, "")
    listed = [path for _, _, path, _ in server.asked if "labelSelector" in path]
    assert len(listed) == 1
    kueue.body = workload(EVICTED)
    status.next_attempt()
    assert told(status) == [f"Kueue: Evicted (Preempted): {PREEMPTED}"]
    assert status.eviction.endswith(PREEMPTED)
    kueue.body = workload(
        condition("Evicted", "False", "QuotaReserved", f"Previously: {PREEMPTED}"), ADMITTED
    )
    assert told(status) == ["Kueue: Admitted: The workload is admitted"]
    assert status.eviction == f"Kueue: Evicted: {PREEMPTED}", "it was admitted again meanwhile"


def test_a_missing_quota_that_changes_with_each_job_is_not_told_each_time(
    server: Server, status: QueueStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_status, "READ_SECONDS", 0.0)
    kueue, now = Kueue(server), [100.0]
    assert len(told(status, clock=lambda: now[0])) == 1
    kueue.body = workload(condition("QuotaReserved", "False", "Pending", "2 more needed"))
    for _ in range(20):
        now[0] += 1.0
        assert status.changes(now[0]) == []
        time.sleep(0.01)
    now[0] += queue_status.QUIET_SECONDS
    assert told(status, clock=lambda: now[0]) == ["Kueue: not QuotaReserved (Pending): 2 more needed"]


def test_who_may_not_read_it_is_told_once_and_it_is_asked_for_no_more(
    server: Server, status: QueueStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_status, "READ_SECONDS", 0.0)
    kueue = Kueue(server)
    message = 'workloads.kueue.x-k8s.io is forbidden: User "eve" cannot list resource "workloads"'
    kueue.refused = (403, {}, {"reason": "Forbidden", "message": message})
    (line,) = told(status)
    assert line.startswith("cannot read what Kueue reports of the run: not allowed to list workloads")
    count = len(server.asked)
    for _ in range(5):
        assert status.changes(time.monotonic()) == []
        time.sleep(0.01)
    assert (len(server.asked), status.is_read) == (count, True)


def test_a_cluster_without_kueue_admits_nothing(server: Server, status: QueueStatus) -> None:
    Kueue(server).group = (404, {}, {"reason": "NotFound", "message": "404 page not found"})
    (line,) = told(status)
    assert "does not have Kueue" in line
    assert "team-a" in line


def test_a_run_in_no_queue_asks_nobody(server: Server, tmp_path: Path) -> None:
    status = QueueStatus(client(server, tmp_path), replace(KNOWN, queue=""))
    assert status.changes(time.monotonic()) == []
    assert status.is_read
    time.sleep(0.05)
    assert server.asked == []


def test_a_group_of_pods_has_the_runs_name(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, {}, GROUP), (200, {}, workload(ADMITTED))]
    info = replace(facts(2, pods=True), queue="team-a")
    assert told(QueueStatus(client(server, tmp_path), info)) == ["Kueue: Admitted: The workload is admitted"]
    assert server.asked[-1][2].endswith(f"/namespaces/{NAMESPACE}/workloads/{RUN}")
