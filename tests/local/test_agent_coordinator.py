"""Ends that come at odd moments: before the beginning, and while others are being stopped."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.agents import spec
from tests.namespaces import isolated
from torchnet.agent import agent, receipt
from torchnet.agent.coordinator import Coordinator
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.framed_socket import FramedSocket
from torchnet.agent.rendezvous import JoinRequest
from torchnet.agent.worker import Worker
from torchnet.local import loopback
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow


class Job:
    """A coordinator and the other ends of its workers' connections."""

    def __init__(self, mtus: list[int]) -> None:
        self.loop = EventLoop()
        self.events: list[dict[str, Any]] = []
        self.heard: list[list[str]] = [[] for _ in mtus]
        told = spec(Path("/nowhere"), 0, len(mtus), loopback=True)
        rails = (Rail(0, "loopback", "lo", "127.0.0.1", 4, 8, 65536),)
        self.coordinator = Coordinator(self.loop, told, rails, self.events.append, receipt.job)
        self.ends: list[FramedSocket] = []
        for rank, mtu in enumerate(mtus):
            ours, theirs = socket.socketpair()
            row = PeerRow(rank, f"node-{rank}", f"u{rank}", (PeerRail("lo", f"127.0.0.{rank + 1}", mtu),))
            self.coordinator.add(theirs, JoinRequest.of(told, row))
            self.ends.append(FramedSocket(self.loop, ours, partial(self.on, rank), lambda: None))

    def on(self, rank: int, message: dict[str, Any]) -> None:
        self.heard[rank].append(message["op"])
        if message["op"] == "stop" and rank == 1:
            self.loop.later(0.2, self.ends[1].close)  # told by somebody else as well, it goes without a word
        elif message["op"] == "stop":
            self.ends[rank].send({"op": "stopped", "attempt": 0, "codes": {}})
        elif message["op"] == "receipt":
            self.ends[rank].send({"op": "receipt", "receipt": empty(rank)})
        elif message["op"] == "over" and rank == 0:
            self.loop.stop()


def empty(rank: int) -> dict[str, Any]:
    return {
        "node": f"node-{rank}",
        "node_rank": rank,
        "interfaces": {},
        "peers": [],
        "peer_bytes": 0,
        "other_bytes": 0,
        "proof": "unknown",
        "codes": {},
        "flaps": [],
        "findings": [],
    }


@isolated
def test_nobody_waits_for_a_worker_that_went_while_it_was_stopped() -> None:
    job = Job([9000, 9000, 1500])
    job.loop.later(30, job.loop.stop)
    began = time.monotonic()
    job.loop.run()
    assert time.monotonic() - began < 3
    (made,) = (event["receipt"] for event in job.events if event["event"] == "receipt")
    assert made["exit_code"] == 4
    assert "MTU 1500 on node-2" in made["reason"]
    assert [node["node"] for node in made["nodes"]] == ["node-0", "node-2"]
    assert "1 of 3 workers left no receipt" in made["findings"]
    assert job.heard[2][-1] == "over"


@isolated
def test_a_worker_that_is_told_to_stop_before_it_began_ends() -> None:
    """The launcher may know of another node's failure before this one has looked at its addresses."""
    told = spec(Path("/nowhere"), 0, 2, loopback=True)
    failure = Failure("network", "node-1: it has no net1", 4)
    events: list[dict[str, Any]] = []

    class Impatient:
        pending = 0

        def __init__(self, loop: EventLoop, worker: Callable[[], Worker]) -> None:
            loop.later(0, lambda: worker().interrupt(failure))

        def send(self, event: dict[str, Any]) -> None:
            events.append(event)

        def flush(self) -> None:
            pass

    began = time.monotonic()
    assert agent.run(told, loopback.LoopbackSource(0), Impatient) == 4
    assert time.monotonic() - began < 3
    assert [event["event"] for event in events] == ["failure", "worker_receipt", "end"]


@isolated
def test_a_pod_that_is_evicted_before_the_start_goes_alone() -> None:
    """Another takes its place, so the others are not told to stop; where nodes are not replaced, they are."""
    for phase, heard in (("prepare", []), ("work", []), ("all", ["failed"])):
        loop = EventLoop()
        ours, theirs = socket.socketpair()
        events: list[dict[str, Any]] = []
        told = spec(Path("/nowhere"), 1, 2, loopback=True, phase=phase)
        worker = Worker(loop, told, loopback.LoopbackSource(1), _Events(events))
        messages: list[str] = []
        FramedSocket(loop, theirs, lambda message, kept=messages: kept.append(message["op"]), lambda: None)  # type: ignore[misc]
        worker._connected(ours)
        worker._state = "preflight"
        worker.interrupt(agent.by_signal(15, 143))
        loop.later(0.3, loop.stop)
        loop.run()
        assert messages == heard
        assert worker.code == (143 if phase != "all" else 70)
        assert [event["text"] for event in events if event["event"] in ("failure", "told")] == [
            "stopped by SIGTERM"
        ]
        worker.close()


class _Events:
    pending = 0

    def __init__(self, kept: list[dict[str, Any]]) -> None:
        self._kept = kept

    def send(self, event: dict[str, Any]) -> None:
        self._kept.append(event)

    def flush(self) -> None:
        pass
