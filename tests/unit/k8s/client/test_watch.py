"""The watch on a run's pods: a list, the changes since, and a new list wherever the server has forgotten them (410)."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.api_answers import Server, kubeconfig, serving
from torchnet.errors import ClusterError, TorchnetError
from torchnet.k8s.client import watch
from torchnet.k8s.client.access import load
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.watch import Watch

GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 5 (90)"}


def listed(version: int, *names: str) -> tuple[int, dict[str, str], Any]:
    items = [{"metadata": {"name": name, "resourceVersion": str(version)}} for name in names]
    return 200, {}, {"metadata": {"resourceVersion": str(version)}, "items": items}


def stream(*events: tuple[str, dict[str, Any]]) -> tuple[int, dict[str, str], bytes]:
    return (
        200,
        {},
        b"".join(json.dumps({"type": kind, "object": body}).encode() + b"\n" for kind, body in events),
    )


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


class Seen:
    """A watch on the server, and what it tells."""

    def __init__(self, address: str, folder: Path) -> None:
        self.told: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.client = ApiClient(load(str(kubeconfig(folder / "config", address))), patience=3.0)
        self.watch = Watch(
            self.client,
            "ml",
            "run",
            on_list=lambda pods: self.told.put(("listed", [one["metadata"]["name"] for one in pods])),
            on_event=lambda kind, one: self.told.put((kind, one["metadata"]["name"])),
            on_error=lambda error: self.told.put(("failed", error)),
        )

    def next(self, count: int) -> list[tuple[str, Any]]:
        return [self.told.get(timeout=10) for _ in range(count)]


server = pytest.fixture(serving)


@pytest.fixture
def seen(server: Server, tmp_path: Path) -> Iterator[Seen]:
    made = Seen(server.address, tmp_path)
    yield made
    made.client.stop.set()


def versions(server: Server) -> list[str]:
    """Of each question the version that it goes on from, "list" for a new list."""
    asked = [parse_qs(urlsplit(path).query) for _, _, path, _ in server.asked]
    return [query["resourceVersion"][0] if "watch" in query else "list" for query in asked]


def test_410_twice_as_an_answer_and_in_the_stream(server: Server, seen: Seen) -> None:
    """Each time all is listed anew, and nothing between is missed."""
    server.answers = [
        listed(5, "a"),
        (410, {}, GONE),
        listed(90, "a", "b"),
        stream(("MODIFIED", pod("b", 91)), ("ERROR", GONE)),
        listed(200, "b"),
        stream(("DELETED", pod("b", 201))),
        stream(),
    ]
    seen.watch.start()
    told = seen.next(5)
    assert told == [
        ("listed", ["a"]),
        ("listed", ["a", "b"]),
        ("MODIFIED", "b"),
        ("listed", ["b"]),
        ("DELETED", "b"),
    ]
    assert versions(server)[:6] == ["list", "5", "list", "90", "list", "200"]


def test_a_stream_that_ends_is_taken_up_where_it_was(server: Server, seen: Seen) -> None:
    bookmark = {"metadata": {"resourceVersion": "70"}}
    server.answers = [
        listed(5),
        stream(("ADDED", pod("a", 6)), ("BOOKMARK", bookmark)),
        stream(("MODIFIED", pod("a", 71))),
        (500, {}, {"message": "etcdserver: leader changed"}),
        stream(("DELETED", pod("a", 72))),
        stream(),
    ]
    seen.watch.start()
    assert seen.next(4) == [("listed", []), ("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert versions(server)[:5] == ["list", "5", "70", "71", "71"]


def test_a_right_that_is_taken_away_ends_it(server: Server, seen: Seen) -> None:
    forbidden = {"kind": "Status", "code": 403, "message": "pods is forbidden"}
    server.answers = [listed(5), (403, {}, forbidden)]
    seen.watch.start()
    (first, (kind, error)) = seen.next(2)
    assert (first, kind) == (("listed", []), "failed")
    assert isinstance(error, ClusterError)
    assert "watch pods in namespace ml" in str(error)
    assert len(server.asked) == 2, "no storm of questions"


def test_an_event_that_cannot_be_read_is_made_up_for_by_a_new_list(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 0.01)
    seen = Seen(server.address, tmp_path)
    unread = [
        b"not JSON\n",
        b"[1]\n",
        b'{"type": "ADDED", "object": {"metadata": null}}\n',
        b"[" * 100_000 + b"\n",
    ]
    for number, text in enumerate(unread):
        server.answers += [listed(number, f"list-{number}"), (200, {}, text)]
    server.answers += [listed(9, "last"), stream(("ADDED", pod("a", 10))), stream()]
    del server.answers[0]
    seen.watch.start()
    told = seen.next(len(unread) + 2)
    assert told == [
        *(("listed", [f"list-{number}"]) for number in range(len(unread))),
        ("listed", ["last"]),
        ("ADDED", "a"),
    ]


def test_a_server_that_fails_in_the_stream_is_not_asked_again_and_again(server: Server, seen: Seen) -> None:
    """Each new list may be 10 MB: the intervals double, also where each stream brings an event before its error."""
    error = {"kind": "Status", "code": 500, "message": "etcdserver: request timed out"}
    server.answers = [listed(5), *[stream(("ADDED", pod("a", 6)), ("ERROR", error)), listed(6)] * 20]
    seen.watch.start()
    seen.next(2)
    time.sleep(2.5)
    assert 3 <= versions(server).count("list") <= 5


def test_a_server_that_ends_each_stream_at_once_is_asked_ever_more_rarely(server: Server, seen: Seen) -> None:
    server.answers = [listed(5), stream()]
    seen.watch.start()
    seen.next(1)
    time.sleep(2.5)
    assert 4 <= len(server.asked) <= 6
    assert versions(server).count("list") == 1


def paged(version: int, rest: str, *names: str) -> tuple[int, dict[str, str], Any]:
    status, headers, body = listed(version, *names)
    return status, headers, body | {"metadata": body["metadata"] | {"continue": rest}}


def test_a_long_list_is_read_in_pages(server: Server, seen: Seen) -> None:
    server.answers = [paged(5, "two", "a"), listed(5, "b"), stream()]
    seen.watch.start()
    assert seen.next(1) == [("listed", ["a", "b"])]
    asked = [parse_qs(urlsplit(path).query) for _, _, path, _ in server.asked[:2]]
    assert [one["limit"] for one in asked] == [["500"], ["500"]]
    assert [one.get("continue") for one in asked] == [None, ["two"]]


def test_pages_that_are_too_old_are_read_at_once(server: Server, seen: Seen) -> None:
    server.answers = [paged(5, "two", "a"), (410, {}, GONE), listed(9, "a", "b"), stream()]
    seen.watch.start()
    assert seen.next(1) == [("listed", ["a", "b"])]
    asked = [parse_qs(urlsplit(path).query) for _, _, path, _ in server.asked[:3]]
    assert [sorted(one) for one in asked][2] == ["labelSelector"]


def test_a_defect_ends_it_with_torchnets_own_exit_code(server: Server, seen: Seen) -> None:
    server.answers = [listed(5), stream(("ERROR", {"code": "many"}))]
    seen.watch.start()
    (_, (kind, error)) = seen.next(2)
    assert kind == "failed"
    assert isinstance(error, TorchnetError)
    assert error.exit_code == 70
    assert "the watch on the pods of run failed: ValueError" in str(error)
