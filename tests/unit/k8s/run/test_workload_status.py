"""What the launcher asks besides the pods' watch: the workload at growing intervals, and a watch on Events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.api_answers import client
from tests.unit.api_store import Store, forbidden, storing
from tests.unit.kubernetes_objects import LABELS, NAMESPACE, RUN, facts, pod, workers
from torchnet.k8s.run import workload_status
from torchnet.k8s.run.worker_set import WorkerStatus
from torchnet.k8s.run.workload_status import WorkloadStatus

QUOTA = "exceeded quota: none"
KNOWN = replace(facts(2), uid="the-job", created=1_767_225_600.0)  # 2026-01-01T00:00:00Z
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": RUN, "namespace": NAMESPACE, "labels": dict(LABELS)},
    "status": {},
}

store = pytest.fixture(storing)


@pytest.fixture
def look(store: Store, tmp_path: Path) -> WorkloadStatus:
    return WorkloadStatus(client(store, tmp_path), KNOWN)


def put(
    store: Store,
    name: str,
    text: str,
    uid: str,
    reason: str = "FailedCreate",
    at: str = "2026-01-01T00:00:01Z",
) -> None:
    about = {"name": name, "uid": uid}
    number = sum(one["kind"] == "Event" for one in store.objects.values())
    meta = {"name": f"event-{number}", "namespace": NAMESPACE}
    kind = "Normal" if reason in ("Pulling", "TriggeredScaleUp") else "Warning"
    body = {"apiVersion": "v1", "kind": "Event", "metadata": meta, "type": kind, "reason": reason}
    store.put(body | {"message": text, "involvedObject": about, "lastTimestamp": at})


def settled(
    look: WorkloadStatus, there: dict[int, WorkerStatus], done: Callable[[dict[str, str]], bool] = bool
) -> dict[str, str]:
    """Return the text once ``done`` accepts it, or after 5 s."""
    until = time.monotonic() + 5
    while not done(found := look.event_texts(there)) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def fields(store: Store) -> list[str]:
    """The field selectors of the watches and the lists on Events."""
    asked = [parse_qs(urlsplit(path).query) for _, _, path, _ in store.asked if "/events" in path]
    return sorted({one["fieldSelector"][0] for one in asked})


def test_events_are_told_from_before_and_as_they_come(store: Store, look: WorkloadStatus) -> None:
    put(store, RUN, QUOTA, "the-job")
    assert settled(look, {}) == {RUN: f"FailedCreate: {QUOTA}"}
    put(store, RUN, "another reason", "the-job", at="2026-01-01T00:00:02Z")
    put(store, RUN, "an older one", "the-job", at="2026-01-01T00:00:00Z")
    told = settled(look, {}, lambda found: "another" in found[RUN])
    assert told == {RUN: "FailedCreate: another reason"}
    lists = [path for _, _, path, _ in store.asked if "/events" in path and "watch=" not in path]
    assert len(lists) == 2, "one for each selector, at the beginning"
    assert fields(store) == ["reason=Pulling", "type=Warning"]


def test_a_watch_on_events_ends_when_it_is_not_needed_any_more(store: Store, look: WorkloadStatus) -> None:
    put(store, RUN, QUOTA, "the-job")
    settled(look, {})
    look.stop_events()
    time.sleep(0.6)  # a stream of the store ends after 0.2 s
    asked = len(store.asked)
    time.sleep(0.6)
    assert len(store.asked) == asked
    put(store, RUN, "of the next attempt", "the-job", at="2026-01-01T00:00:02Z")
    assert settled(look, {}, lambda found: "next" in found[RUN]) == {RUN: "FailedCreate: of the next attempt"}


def test_events_that_nobody_may_see_are_not_asked_for_again(store: Store, look: WorkloadStatus) -> None:
    store.faults = [("GET", "/events", forbidden("events"))]
    assert settled(look, {}, lambda _: len(store.asked) >= 2) == {}
    time.sleep(0.5)
    assert look.event_texts({}) == {}
    assert len(store.asked) == 2


def test_another_object_of_the_name_tells_nothing(store: Store, look: WorkloadStatus) -> None:
    body = pod(0)
    name = body["metadata"]["name"]
    put(store, RUN, QUOTA, "an-earlier-job")
    put(store, name, "of an earlier pod", "another", "FailedMount")
    put(store, f"{RUN}-1", "of an earlier run", "another", "FailedMount", at="2025-12-31T23:59:59Z")
    put(store, f"{RUN}-2", "of this run", "not-known-yet", "FailedMount")
    assert settled(look, workers(body)) == {f"{RUN}-2": "FailedMount: of this run"}


def test_a_watch_whose_thread_cannot_start_is_tried_again(
    store: Store, look: WorkloadStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    put(store, RUN, QUOTA, "the-job")
    with monkeypatch.context() as changed:
        changed.setattr(threading.Thread, "start", start)
        assert look.event_texts({}) == {}
    assert settled(look, {})[RUN] == f"FailedCreate: {QUOTA}"


def test_new_nodes_are_asked_for_only_where_a_pod_has_none(store: Store, look: WorkloadStatus) -> None:
    body = pod(0, scheduled={"status": "False", "reason": "Unschedulable"})
    name = body["metadata"]["name"]
    put(store, name, "pod triggered scale-up", body["metadata"]["uid"], "TriggeredScaleUp")
    assert settled(look, workers(body)) == {name: "TriggeredScaleUp: pod triggered scale-up"}
    until = time.monotonic() + 5
    while len(fields(store)) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    assert fields(store) == ["reason=Nominated", "reason=Pulling", "reason=TriggeredScaleUp", "type=Warning"]


def reads(store: Store) -> int:
    return store.wanted("GET", f"/jobs/{RUN}")


def polled(look: WorkloadStatus, seconds: float) -> None:
    """Ask as the launcher does, ten times a second."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        look.over()
        time.sleep(0.1)


def test_a_workload_that_does_not_change_is_read_ever_more_rarely(
    store: Store, look: WorkloadStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload_status, "END_SECONDS", 0.1)
    store.put(JOB)
    polled(look, 2.5)
    assert 4 <= reads(store) <= 7
    before = reads(store)
    look.expect_change()
    polled(look, 0.4)
    assert reads(store) > before


def test_many_workers_that_end_do_not_cause_as_many_reads(store: Store, look: WorkloadStatus) -> None:
    store.put(JOB)
    until, count = time.monotonic() + 2.0, 0
    while time.monotonic() < until:
        count += 1
        look.read_since(count)
        time.sleep(0.01)
    assert count > 50
    assert 3 <= reads(store) <= 6
    time.sleep(1.0)
    look.read_since(count)
    time.sleep(0.3)
    assert look.read_since(count), "the last one is answered for, too"
