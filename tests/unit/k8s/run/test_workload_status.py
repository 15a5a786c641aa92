"""What the launcher asks besides the pods' watch: events, wherever in the namespace's list they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.api_answers import Answer, Server, client, serving
from tests.unit.kubernetes_objects import RUN, facts, pod, workers
from torchnet.k8s.run.pending import WorkloadStatus
from torchnet.k8s.run.worker_set import WorkerStatus

QUOTA = "exceeded quota: none"
KNOWN = replace(facts(2), uid="the-job", created=1_767_225_600.0)  # 2026-01-01T00:00:00Z

server = pytest.fixture(serving)


@pytest.fixture
def look(server: Server, tmp_path: Path) -> WorkloadStatus:
    return WorkloadStatus(client(server, tmp_path), KNOWN)


def event(
    name: str, text: str, uid: str, reason: str = "FailedCreate", at: str = "2026-01-01T00:00:01Z"
) -> dict[str, Any]:
    about = {"name": name, "uid": uid}
    return {"reason": reason, "message": text, "involvedObject": about, "lastTimestamp": at}


def page(*events: dict[str, Any], rest: str = "") -> Answer:
    return 200, {}, {"metadata": {"continue": rest} if rest else {}, "items": list(events)}


def settled(look: WorkloadStatus, there: dict[int, WorkerStatus], done: Callable[[], bool]) -> dict[str, str]:
    """What is told once the server has been asked for all that it is asked for in one look."""
    look.event_texts(there)
    until = time.monotonic() + 10
    while not done() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    return look.event_texts(there)


def test_the_own_events_are_found_on_a_later_page(server: Server, look: WorkloadStatus) -> None:
    others = [event(f"another-{number}", "x", "y") for number in range(3)]
    server.answers = [
        page(),
        page(*others, rest="two"),
        page(*others, rest="three"),
        page(event(RUN, QUOTA, "the-job")),
    ]
    told = settled(look, {}, lambda: len(server.asked) == 4)
    assert told[RUN] == f"FailedCreate: {QUOTA}"
    asked = [parse_qs(urlsplit(path).query) for _, _, path, _ in server.asked]
    assert [one.get("continue", [""])[0] for one in asked] == ["", "", "two", "three"]
    assert {one["fieldSelector"][0] for one in asked[1:]} == {"type=Warning"}


def test_a_list_that_has_become_too_old_tells_what_it_had(server: Server, look: WorkloadStatus) -> None:
    server.answers = [
        page(),
        page(event(RUN, QUOTA, "the-job"), rest="two"),
        (410, {}, {"message": "expired"}),
    ]
    told = settled(look, {}, lambda: len(server.asked) == 3)
    assert told == {RUN: f"FailedCreate: {QUOTA}"}


def test_a_namespace_without_end_is_not_read_to_its_end(server: Server, look: WorkloadStatus) -> None:
    server.answers = [page(event(RUN, QUOTA, "the-job"), rest="more")]
    settled(look, {}, lambda: len(server.asked) >= 40)
    assert len(server.asked) == 40  # 20 pages of each kind


def test_another_object_of_the_name_tells_nothing(server: Server, look: WorkloadStatus) -> None:
    body = pod(0)
    name = body["metadata"]["name"]
    server.answers = [
        page(),
        page(
            event(RUN, QUOTA, "an-earlier-job"),
            event(name, "of an earlier pod", "another", "FailedMount"),
            event(f"{RUN}-1", "of an earlier run", "another", "FailedMount", at="2025-12-31T23:59:59Z"),
            event(f"{RUN}-2", "of this run", "not-known-yet", "FailedMount"),
        ),
    ]
    told = settled(look, workers(body), lambda: len(server.asked) == 2)
    assert told == {f"{RUN}-2": "FailedMount: of this run"}


def test_a_read_whose_thread_cannot_start_is_tried_again(
    server: Server, look: WorkloadStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as changed:
        changed.setattr(threading.Thread, "start", start)
        assert look.event_texts({}) == {}
    server.answers = [page(event(RUN, QUOTA, "the-job"))]
    assert settled(look, {}, lambda: len(server.asked) >= 2)[RUN] == f"FailedCreate: {QUOTA}"


def test_new_nodes_are_asked_for_only_where_a_pod_has_none(server: Server, look: WorkloadStatus) -> None:
    unscheduled = {"status": "False", "reason": "Unschedulable"}
    body = pod(0, scheduled=unscheduled)
    name = body["metadata"]["name"]
    added = event(name, "pod triggered scale-up", body["metadata"]["uid"], "TriggeredScaleUp")
    server.answers = [page(), page(), page(added), page()]
    told = settled(look, workers(body), lambda: len(server.asked) == 4)
    assert told == {name: "TriggeredScaleUp: pod triggered scale-up"}
    asked = [parse_qs(urlsplit(path).query)["fieldSelector"][0] for _, _, path, _ in server.asked]
    assert asked[2:] == ["reason=TriggeredScaleUp", "reason=Nominated"]
