"""Questions to an API server: what it answers, refuses, delays and garbles; how much is asked, and how often."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api_contract import *  # noqa: F403
from tests.api_contract import status
from tests.api_server import FORBIDDEN, GOOD, Server
from torchnet.agent.api import LIMIT, ApiServer, Ask, NotDoneError
from torchnet.agent.pods import Own, PodSource
from torchnet.errors import ClusterError, NetworkError, NotYetError
from torchnet.names import ATTEMPT_LABEL, INDEX_LABEL, RUN_LABEL, STATUS_ANNOTATION

ACCOUNTS = {"good": GOOD, "forbidden": FORBIDDEN, "unknown": "expired"}
OWN, ZERO = {RUN_LABEL: "r", INDEX_LABEL: "1"}, {RUN_LABEL: "r", INDEX_LABEL: "0"}
JSON = {"Content-Type": "application/json"}


class Fake:
    """The server of the tests, as the contract wants it."""

    namespace = "ml"

    def __init__(self, server: Server) -> None:
        self.server = server
        self._opened: list[ApiServer] = []

    def api(self, account: str) -> ApiServer:
        folder = self.server.account(ACCOUNTS[account])
        api = ApiServer(self.server.host, self.server.port, str(folder))
        self._opened.append(api)
        return api

    def put(self, name: str, labels: dict[str, str], annotations: dict[str, str], **fields: Any) -> None:
        self.server.put(self.namespace, name, labels, annotations, **fields)

    def close(self) -> None:
        for api in self._opened:
            api.close()


@pytest.fixture(scope="module", params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("api"), request.param) as running:
        yield running


@pytest.fixture
def world(server: Server) -> Iterator[Fake]:
    state = server.state
    state.pods.clear()
    state.asked.clear()
    state.fault, state.connections = None, 0
    fake = Fake(server)
    yield fake
    fake.close()


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pods(world: Fake, clock: Time | None = None, account: str = "good") -> PodSource:
    clocked = {"clock": clock} if clock else {}
    return PodSource(world.api(account), Own("ml", "own"), ("ml/net",), chance=lambda: 0.5, **clocked)  # type: ignore[arg-type]


def both(world: Fake) -> None:
    world.put("own", OWN, {STATUS_ANNOTATION: status("fd00::1")})
    world.put("zero", ZERO, {STATUS_ANNOTATION: status("fd00::a")})


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
        with pytest.raises(NotYetError, match="rank 0's pod is not there yet"):
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


STRANGE = {"Wed, 01 Jan 2020 00:00:00 GMT": 0.5, "1e9": 0.5, "999999": 60, "-5": 0.5, "x": 0.5}


@pytest.mark.parametrize("after", STRANGE)
def test_a_strange_retry_after_is_kept_within_reason(world: Fake, after: str) -> None:
    world.server.state.fault = lambda _path, _n: (429, {"Retry-After": after}, b"")
    with pytest.raises(NotYetError) as caught:
        world.api("good").get(Ask("ml", "own"))
    assert caught.value.seconds == STRANGE[after]


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

    with pytest.raises(NotDoneError, match="get pods own in namespace ml: 403") as caught:
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


def test_the_token_is_read_anew_for_each_question(world: Fake) -> None:
    both(world)
    api = world.api("good")
    folder = world.server.account()
    (folder / "token").write_text("expired")
    with pytest.raises(NotDoneError, match="401"):
        api.get(Ask("ml", "own"))
    (folder / "token").write_text(GOOD)
    assert api.get(Ask("ml", "own"))


def test_a_connection_that_the_server_has_closed_is_made_anew(world: Fake) -> None:
    both(world)
    api = world.api("good")
    world.server.state.fault = lambda _path, n: (
        (200, JSON | {"Connection": "close"}, b"{}") if n == 1 else None
    )
    assert api.get(Ask("ml", "own")) == {}
    assert api.get(Ask("ml", "own"))


GARBAGE = {
    "no JSON": (b"<html>", "is no JSON"),
    "no object": (b"[]", "is no object"),
    "deep": (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "deeper than"),
    "large": (b'{"a": "' + b"x" * (LIMIT + 1) + b'"}', "is longer than"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_an_answer_that_is_none_is_refused(world: Fake, kind: str) -> None:
    body, why = GARBAGE[kind]
    world.server.state.fault = lambda _path, _n: (200, JSON, body)
    with pytest.raises(ClusterError, match=why):
        world.api("good").get(Ask("ml", "own"))


@pytest.mark.parametrize("items", [None, 5, [5], [{"metadata": None}], [{"metadata": {"name": 7}}]], ids=str)
def test_strange_items_are_no_rank_0(world: Fake, items: Any) -> None:
    both(world)
    body = json.dumps({"items": items}).encode()
    world.server.state.fault = lambda path, _n: (200, JSON, body) if "?" in path else None
    seen = pods(world)
    seen.attachments()
    with pytest.raises((ClusterError, NetworkError)):
        seen.rank0()


def test_a_hostile_annotation_is_data(world: Fake) -> None:
    world.put(
        "own",
        OWN,
        {STATUS_ANNOTATION: '[{"name": "ml/net\\u001b[2J", "interface": "$(reboot)", "ips": ["x"]}]'},
    )
    with pytest.raises(NetworkError) as caught:
        pods(world).attachments()
    assert "\x1b" not in str(caught.value)
    world.server.state.fault = lambda _path, _n: (403, JSON, b'{"message": "\\u001b[2J\\nno"}')
    with pytest.raises(NotDoneError) as refused:
        world.api("good").get(Ask("ml", "own"))
    assert "\\x1b[2J\\x0ano" in str(refused.value)


def test_a_server_that_drips_is_left_after_a_while(world: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchnet.agent.api._WHOLE_SECONDS", 0.3)

    def slow(_path: str, _n: int) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.5)
        return 200, JSON, b"{}"

    world.server.state.fault = slow
    with pytest.raises(NotYetError, match="takes too long"):
        world.api("good").get(Ask("ml", "own"))


def test_nobody_listening_and_another_authority(world: Fake, tmp_path: Path) -> None:
    folder = str(world.server.account())
    with pytest.raises(NotYetError, match="cannot be reached: Connection refused"):
        ApiServer("127.0.0.1", 1, folder).get(Ask("ml", "own"))
    from tests.api_server import certificate

    certificate(tmp_path, "127.0.0.1")
    for name in ("token", "namespace"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ClusterError, match="cannot be reached: .*certificate verify failed"):
        ApiServer(world.server.host, world.server.port, str(tmp_path)).get(Ask("ml", "own"))
    with pytest.raises(ClusterError, match="token: No such file"):
        ApiServer(world.server.host, world.server.port, str(tmp_path / "none")).get(Ask("ml", "own"))


def test_configuration_of_a_pod() -> None:
    with pytest.raises(ClusterError, match="this is no pod") as caught:
        ApiServer.from_pod({})
    assert "--address-source host:" in caught.value.fix
    api = ApiServer.from_pod(
        {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, "/none"
    )
    with pytest.raises(ClusterError, match="/none/namespace: No such file"):
        api.namespace()


def test_pods_of_no_job_are_told_what_is_missing(world: Fake) -> None:
    world.put("own", {"app": "x"}, {STATUS_ANNOTATION: status("fd00::1")})
    seen = pods(world)
    seen.attachments()
    with pytest.raises(ClusterError, match="nothing tells which pod is rank 0") as caught:
        seen.rank0()
    assert "--rank0 ADDRESS" in caught.value.fix
