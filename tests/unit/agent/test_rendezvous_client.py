"""The knock at rank 0's door: whose time it takes."""

from __future__ import annotations

import time
from typing import Any

from tests.unit.agents import rails, spec, table
from torchnet.agent.admission import join_request
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.rendezvous_client import RendezvousClient
from torchnet.network.address_sources import HostInterfaces


def client(loop: EventLoop, timer: PhaseTimer) -> RendezvousClient:
    one, source = spec(1), HostInterfaces("host:net1", ("fd00::1",))
    return RendezvousClient(
        loop,
        one,
        source,
        rails()[0],
        join_request(one, table().rows[1]),
        frontend=None,
        connected=print,
        failed=print,
        notice=print,
        phase_timer=timer,
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
