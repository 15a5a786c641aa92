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


def test_the_time_until_rank_0_cuts_the_connection_is_not_torchnets_own() -> None:
    loop = EventLoop()
    told: list[dict[str, Any]] = []
    clock = PhaseTimer(told.append, age=0.0)
    one, source = spec(1), HostInterfaces("host:net1", ("fd00::1",))
    knock = RendezvousClient(
        loop,
        one,
        source,
        rails()[0],
        join_request(one, table().rows[1]),
        frontend=None,
        connected=print,
        failed=print,
        notice=print,
        phase_timer=clock,
    )
    clock.own()  # it was let in
    time.sleep(0.3)
    knock.retry()
    clock.done("join")
    knock.cancel()
    loop.close()
    assert told[0]["waited_s"] > 0.25
    assert told[0]["own_s"] < 0.05
