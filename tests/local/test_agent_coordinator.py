"""Ends that come at odd moments: before the beginning, and while others are being stopped."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.agents import spec
from tests.namespaces import isolated
from torchnet import constants
from torchnet.agent import agent, receipt
from torchnet.agent import worker as worker_module
from torchnet.agent.admission import join_request
from torchnet.agent.coordinator import Coordinator
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.message_socket import MessageSocket
from torchnet.agent.messages import (
    CoordinatorMessage,
    Kill,
    Over,
    ProcessesStopped,
    ReceiptRequest,
    Start,
    Stop,
    Table,
    WorkerFailed,
    WorkerMessage,
    WorkerReceipt,
    decode_from_coordinator,
    decode_from_worker,
)
from torchnet.agent.stop_signals import interrupted
from torchnet.agent.worker import Worker, WorkerState
from torchnet.launcher import loopback_source
from torchnet.network.interface_selection import Rail
from torchnet.network.path_diagnosis import PathView
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

SIGNAL = interrupted(15)


class Job:
    """A coordinator and the other ends of its workers' connections."""

    def __init__(self, mtus: list[int]) -> None:
        self.loop = EventLoop()
        self.events: list[dict[str, Any]] = []
        self.received: list[list[CoordinatorMessage]] = [[] for _ in mtus]
        one = spec(Path("/nowhere"), 0, len(mtus), loopback=True)
        rails = (Rail(0, None, "lo", "127.0.0.1", 4, 8, 65536),)
        self.coordinator = Coordinator(self.loop, one, rails, self.events.append, receipt.job)
        self.ends: list[MessageSocket[CoordinatorMessage]] = []
        for rank, mtu in enumerate(mtus):
            ours, theirs = socket.socketpair()
            row = PeerRow(rank, f"node-{rank}", f"u{rank}", (PeerRail("lo", f"127.0.0.{rank + 1}", mtu),))
            self.coordinator.admit(theirs, join_request(one, row))
            self.ends.append(
                MessageSocket(self.loop, ours, decode_from_coordinator, partial(self.on, rank), print)
            )

    def on(self, rank: int, message: CoordinatorMessage) -> None:
        self.received[rank].append(message)
        if isinstance(message, Stop) and rank == 1:
            self.loop.later(
                0.2, self.ends[1].close
            )  # stopped by the launcher as well, it leaves without an answer
        elif isinstance(message, Stop):
            self.ends[rank].send(ProcessesStopped())
        elif isinstance(message, ReceiptRequest):
            self.ends[rank].send(WorkerReceipt(empty(rank)))
        elif isinstance(message, Over) and rank == 0:
            self.loop.stop()


def empty(rank: int) -> dict[str, Any]:
    return {
        "node": f"node-{rank}",
        "node_rank": rank,
        "interfaces": {},
        "peers": [],
        "peers_omitted": 0,
        "unattributed": [],
        "rdma_bytes": {},
        "rdma_stray": {},
        "payload": [0, 0, 0, 0],
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
    assert isinstance(job.received[2][-1], Over)


@isolated
def test_a_second_ctrl_c_that_arrives_with_the_first_kills_at_once() -> None:
    job = Job([9000, 9000])
    job.ends[0].send(WorkerFailed(SIGNAL))
    job.ends[0].send(Kill())
    job.loop.later(30, job.loop.stop)
    job.loop.run()
    assert [one.at_once for one in job.received[0] if isinstance(one, Stop)] == [False, True]


@isolated
def test_a_worker_that_is_told_to_stop_before_it_began_ends() -> None:
    """The launcher may know of another node's failure before this one has looked at its addresses."""
    told = spec(Path("/nowhere"), 0, 2, loopback=True)
    failure = Failure("network", "node-1: it has no net1", 4)
    events: list[dict[str, Any]] = []

    class Impatient:
        pending = 0

        def __init__(self, loop: EventLoop, worker: Callable[[], Worker]) -> None:
            self._worker = worker
            loop.later(0, self._interrupt)

        def _interrupt(self) -> None:
            assert not self._worker().interrupt(failure), "it has no process that stops"

        def send(self, event: dict[str, Any]) -> None:
            events.append(event)

        def flush(self) -> None:
            pass

    began = time.monotonic()
    assert agent.run(told, loopback_source.LoopbackSource(0), Impatient) == 4
    assert time.monotonic() - began < 3
    assert [event["event"] for event in events] == ["failure", "worker_receipt", "end"]


@isolated
def test_a_worker_whose_paths_work_says_on_which_node_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows that this node is reached, should another worker's preflight fail."""
    said = []

    def view(*fields: Any) -> PathView:
        said.append(PathView(*fields))
        return said[-1]

    monkeypatch.setenv(constants.HOST_VARIABLE, "node7")
    monkeypatch.setattr(worker_module, "PathView", view)
    (tmp_path / "script.py").touch()
    told = spec(tmp_path, 0, 1, loopback=True)
    assert agent.run(told, loopback_source.LoopbackSource(0), lambda *_: _Events([])) == 0
    assert said == [PathView("node7")]


@isolated
def test_a_pod_that_is_evicted_before_the_start_goes_alone() -> None:
    """Another takes its place, so the others are not told to stop; where nodes are not replaced, they are."""
    cases: list[tuple[str, int | None, list[WorkerMessage], int]] = [
        ("work", 0, [], 75),
        ("work", None, [], 143),
        ("all", None, [WorkerFailed(SIGNAL)], 70),
    ]
    for phase, replaced, expected, code in cases:
        loop = EventLoop()
        ours, theirs = socket.socketpair()
        events: list[dict[str, Any]] = []
        told = spec(Path("/nowhere"), 1, 2, loopback=True, phase=phase, replaced=replaced)
        worker = Worker(loop, told, loopback_source.LoopbackSource(1), _Events(events))
        messages: list[WorkerMessage] = []
        _other: MessageSocket[WorkerMessage] = MessageSocket(
            loop, theirs, decode_from_worker, messages.append, print
        )
        worker._use(ours)
        worker._state.current = WorkerState.PREFLIGHT
        worker.interrupt(SIGNAL)
        loop.later(0.3, loop.stop)
        loop.run()
        assert messages == expected
        assert worker.code == code
        kinds = ("failure", "stopping", "replaced")
        assert [event["text"] for event in events if event["event"] in kinds] == ["stopped by SIGTERM"]
        worker.close()


@isolated
def test_a_message_that_fits_neither_the_state_nor_the_job_stops_the_worker() -> None:
    odd: list[CoordinatorMessage] = [Start(29501), Over(0), Table(0, 1, PeerTable(()))]
    for message in odd:
        loop = EventLoop()
        ours, theirs = socket.socketpair()
        events: list[dict[str, Any]] = []
        worker = Worker(
            loop,
            spec(Path("/nowhere"), 1, 2, loopback=True),
            loopback_source.LoopbackSource(1),
            _Events(events),
        )
        other: MessageSocket[WorkerMessage] = MessageSocket(loop, theirs, decode_from_worker, print, print)
        worker._use(ours)
        other.send(message)
        other.send(message)
        loop.later(5, loop.stop)
        loop.run()
        assert worker.code == 70
        assert [event["kind"] for event in events if event["event"] == "failure"] == ["lost"]
        worker.close()
        other.close()


class _Events:
    pending = 0

    def __init__(self, kept: list[dict[str, Any]]) -> None:
        self._kept = kept

    def send(self, event: dict[str, Any]) -> None:
        self._kept.append(event)

    def flush(self) -> None:
        pass
