"""The pods of a job, as an agent looks them up: who is rank 0, how much is asked, and how often."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api_contract import status
from tests.api_server import FORBIDDEN
from tests.api_world import JSON, OWN, ZERO, Fake, Time, both, pods
from torchnet.agent.kube_api import DeniedError
from torchnet.constants import ATTEMPT_LABEL, STATUS_ANNOTATION
from torchnet.errors import ClusterError, NetworkError, NotYetError

pytestmark = pytest.mark.waits


def test_two_questions_over_one_connection_are_all(world: Fake) -> None:
    both(world)
    seen = pods(world)
    for _ in range(50):  # discovery looks again and again while addresses are tentative, and the join knocks
        seen.attachments()
        seen.rank0()
    assert [line.partition("?")[0] for line in world.server.state.asked] == [
        "GET /api/v1/namespaces/ml/pods/own",
        "GET /api/v1/namespaces/ml/pods",
    ]
    assert world.server.state.connections == 1


def test_the_labels_of_rank_0_that_somebody_names_count_even_where_the_own_pod_is_known(world: Fake) -> None:
    both(world)
    world.put("lead", {"app": "lead"}, {STATUS_ANNOTATION: status("fd00::b")})
    seen = pods(world, rank0="app=lead")
    assert seen.rank0() == ("fd00::b",)
    assert world.server.state.asked[0].startswith("GET /api/v1/namespaces/ml/pods?")
    assert "resourceVersion=0" in world.server.state.asked[0], "from the cache"
    seen = pods(world, rank0="app=lead")
    seen.attachments()
    assert seen.rank0() == ("fd00::b",)


def test_the_own_pod_is_asked_for_once_however_often_rank_0_is(world: Fake) -> None:
    world.put("own", OWN, {STATUS_ANNOTATION: status("fd00::1")})
    clock = Time()
    seen = pods(world, clock)
    for _ in range(5):
        with pytest.raises(NotYetError, match="rank 0's pod does not exist yet"):
            seen.rank0()
        clock.now += 10
    world.put("zero", ZERO, {STATUS_ANNOTATION: status("fd00::a")})
    assert seen.rank0() == ("fd00::a",)
    asked = [line.partition("?")[0].rpartition("/")[2] for line in world.server.state.asked]
    assert asked == ["own", *["pods"] * 6]


def test_an_address_that_does_not_answer_is_asked_for_again_and_another_pod_is_found(world: Fake) -> None:
    both(world)
    clock = Time()
    seen = pods(world, clock)
    seen.attachments()
    assert seen.rank0() == ("fd00::a",)
    world.server.state.pods["ml", "zero"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:10Z"
    world.put("another", ZERO, {STATUS_ANNOTATION: status("fd00::b")}, created="2026-01-01T00:00:09Z")
    assert seen.rank0() == ("fd00::a",)
    clock.now += 4
    assert seen.rank0() == ("fd00::b",)


def test_the_newest_pod_is_rank_0_and_only_of_the_own_attempt(world: Fake) -> None:
    world.put("own", OWN | {ATTEMPT_LABEL: "1"}, {STATUS_ANNOTATION: status("fd00::1")})
    for name, attempt, created in (("a", "1", "03"), ("b", "1", "05"), ("c", "0", "09"), ("d", "2", "09")):
        made = f"2026-01-01T00:00:{created}Z"
        world.put(
            name, ZERO | {ATTEMPT_LABEL: attempt}, {STATUS_ANNOTATION: status(f"fd00::{name}")}, created=made
        )
    assert pods(world).rank0() == ("fd00::b",)


def test_who_waits_for_rank_0_asks_less_and_less_often(world: Fake) -> None:
    world.put("own", OWN, {STATUS_ANNOTATION: status("fd00::1")})
    clock = Time()
    seen = pods(world, clock)
    seen.attachments()
    for _ in range(3000):  # five minutes of knocking
        with pytest.raises(NotYetError, match="rank 0's pod does not exist yet"):
            seen.rank0()
        clock.now += 0.1
    assert 40 < len(world.server.state.asked) < 70
    world.put("zero", ZERO, {})
    clock.now += 10
    with pytest.raises(NotYetError, match="rank 0's pod zero has no network-status yet"):
        seen.rank0()


def test_retry_after_is_honoured_and_more_each_time(world: Fake) -> None:
    both(world)
    waits = []
    world.server.state.fault = lambda _path, n: (429, {"Retry-After": "3"}, b"{}") if n <= 2 else None
    seen = pods(world)
    for _ in range(2):
        with pytest.raises(NotYetError, match="429") as caught:
            seen.attachments()
        waits.append(caught.value.seconds)
        assert isinstance(caught.value.error, ClusterError)
        assert caught.value.error.exit_code == 3
    assert waits == [3, 3]
    seen.attachments()
    world.server.state.fault = lambda _path, _n: (503, {}, b"no JSON")
    other, waits = pods(world), []
    for _ in range(8):
        with pytest.raises(NotYetError, match="503") as caught:
            other.attachments()
        waits.append(caught.value.seconds)
    assert waits == sorted(waits)
    assert waits[0] >= 0.5
    assert 5 < waits[-1] < 9


def test_forbidden_is_tried_a_few_times_and_no_storm(world: Fake) -> None:
    both(world)
    clock = Time()
    seen = pods(world, clock, "forbidden")

    def until_refused() -> None:
        while True:
            try:
                seen.attachments()
            except NotYetError as error:
                clock.now += error.seconds

    with pytest.raises(DeniedError, match="get pods own in namespace ml: 403") as caught:
        until_refused()
    assert caught.value.exit_code == 3
    assert 3 <= len(world.server.state.asked) <= 10
    assert 6 <= clock.now - 100 < 15


def test_a_right_that_comes_late_is_waited_for(world: Fake) -> None:
    both(world)
    clock = Time()
    seen = pods(world, clock, "forbidden")
    with pytest.raises(NotYetError, match="403"):
        seen.attachments()
    world.server.state.tokens[FORBIDDEN] = True
    try:
        assert seen.attachments()[0].ips == ("fd00::1",)
    finally:
        world.server.state.tokens[FORBIDDEN] = False


@pytest.mark.parametrize("items", [None, 5, [5], [{"metadata": None}], [{"metadata": {"name": 7}}]], ids=str)
def test_strange_items_are_no_rank_0(world: Fake, items: Any) -> None:
    both(world)
    body = json.dumps({"items": items}).encode()
    world.server.state.fault = lambda path, _n: (200, JSON, body) if "?" in path else None
    seen = pods(world)
    seen.attachments()
    with pytest.raises((ClusterError, NetworkError)):
        seen.rank0()


def test_pods_of_no_job_are_told_what_is_missing(world: Fake) -> None:
    world.put("own", {"app": "x"}, {STATUS_ANNOTATION: status("fd00::1")})
    seen = pods(world)
    seen.attachments()
    with pytest.raises(ClusterError, match="cannot determine rank 0's pod") as caught:
        seen.rank0()
    assert "--rank0 ADDRESS" in caught.value.fix
