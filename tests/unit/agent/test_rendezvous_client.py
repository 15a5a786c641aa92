"""The knock at rank 0's door: whose time it takes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.unit.agents import rails, spec, table
from torchnet.agent import rendezvous_client
from torchnet.agent.admission import join_request
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.rendezvous_client import RendezvousClient
from torchnet.linux import rtnetlink
from torchnet.network.address_sources import HostInterfaces


def client(loop: EventLoop, timer: PhaseTimer, rank0: str = "fd00::1", **more: Any) -> RendezvousClient:
    one, source = spec(1, **more.pop("spec", {})), HostInterfaces("host:net1", (rank0,))
    told: dict[str, Any] = {"connected": print, "failed": print, "notice": print} | more
    return RendezvousClient(
        loop,
        one,
        source,
        rails()[0],
        join_request(one, table().rows[1]),
        frontend=None,
        phase_timer=timer,
        **told,
    )


def test_the_time_until_rank_0_cuts_the_connection_is_not_torchnets_own() -> None:
    loop = EventLoop()
    told: list[dict[str, Any]] = []
    clock = PhaseTimer(told.append, age=0.0)
    knock = client(loop, clock)
    clock.own()  # it was let in
    time.sleep(0.3)
    knock.retry()
    clock.done("join")
    knock.cancel()
    loop.close()
    assert told[0]["waited_s"] > 0.25
    assert told[0]["own_s"] < 0.05


def test_workers_that_fail_together_do_not_try_again_together() -> None:
    pauses = []
    for _ in range(50):
        loop = EventLoop()
        one = client(loop, PhaseTimer(lambda _event: None))
        one._tries = 6
        one.retry()
        pauses.append(one._timer.due - loop.time())
        loop.close()
    assert 0.24 < min(pauses) < 0.4
    assert 0.6 < max(pauses) < 0.76


class NoAnswer:
    """An attempt to connect to an address that does not even refuse it."""

    error: OSError = TimeoutError("timed out")

    def __init__(self, loop: EventLoop, *arguments: Any, **_more: Any) -> None:
        self.timer = loop.later(0, lambda: arguments[-1](self.error))

    def cancel(self) -> None:
        self.timer.cancel()


class Refusal(NoAnswer):
    tries = 0
    error = ConnectionRefusedError("refused")

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        Refusal.tries += 1


def test_few_workers_do_not_wait_long_for_a_rank_0_that_starts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous_client, "Attempt", Refusal)
    monkeypatch.setattr(rendezvous_client, "wrong_route", lambda *_: "")
    monkeypatch.setattr(rendezvous_client, "_NOTICE_SECONDS", 1.0)
    tries: list[int] = []
    for nnodes in (2, 1000):
        loop, notices = EventLoop(), []  # type: tuple[EventLoop, list[str]]
        Refusal.tries = 0
        client(loop, PhaseTimer(lambda _event: None), spec={"nnodes": nnodes}, notice=notices.append)
        loop.later(1.0, lambda tries=tries: tries.append(Refusal.tries))  # type: ignore[misc]
        loop.later(3.0, loop.stop)
        loop.run()
        loop.close()
        assert len(notices) == 1
        assert "refused" in notices[0]
    assert tries[0] > 10 > tries[1]


def test_a_rank_0_in_another_range_of_ipvlan_l3_is_told_with_the_routes_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous_client, "Attempt", NoAnswer)
    monkeypatch.setattr(rendezvous_client, "wrong_route", lambda *_: "")
    for mode, told in (("l3", True), ("l2", False)):
        monkeypatch.setattr(rtnetlink, "link_types", lambda mode=mode: {"net1": ("ipvlan", mode)})
        loop = EventLoop()
        notices: list[str] = []
        failures: list[Failure] = []

        def failed(failure: Failure, loop: EventLoop = loop, failures: list[Failure] = failures) -> None:
            failures.append(failure)
            loop.stop()

        began = time.monotonic()
        more: dict[str, Any] = {"spec": {"start_timeout": 3.0}, "failed": failed, "notice": notices.append}
        client(loop, PhaseTimer(lambda _event: None), "fd00:7::1", **more)
        loop.run()
        loop.close()
        assert time.monotonic() - began < 10
        command = "ip -6 route replace fd00:7::/64 via"
        assert any(command in text for text in notices) is told
        assert (command in failures[0].text) is told
