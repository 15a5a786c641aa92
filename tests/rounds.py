"""A coordinator with the other ends of its workers' connections, and an event loop that the test runs."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.agents import spec
from torchnet.agent import receipt
from torchnet.agent.coordinator import Coordinator
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.message_socket import MessageSocket
from torchnet.agent.messages import (
    CoordinatorMessage,
    Heartbeat,
    JoinRequest,
    PreflightResult,
    Table,
    WorkerMessage,
    decode_from_coordinator,
)
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow

RAILS = (Rail(0, None, "lo", "127.0.0.1", 4, 8, 65536),)


M = TypeVar("M")


class Other:
    """The worker's end of a connection to the coordinator; it records messages, and sends what the test wants."""

    def __init__(self, job: Job, rank: int, uid: str) -> None:
        ours, theirs = socket.socketpair()
        row = PeerRow(rank, f"run-{rank}", uid, (PeerRail("lo", f"127.0.0.{rank + 1}", 65536),))
        self.rank = rank
        self.received: list[CoordinatorMessage] = []
        self.gone = False
        self.connection: MessageSocket[CoordinatorMessage] = MessageSocket(
            job.loop, theirs, decode_from_coordinator, self.received.append, self._cut
        )
        request = JoinRequest(row, job.spec.run_id, job.spec.nnodes)
        job.coordinator.admit(ours, request)

    def _cut(self, _problem: str) -> None:
        self.gone = True

    def types(self) -> list[str]:
        """The types of the messages but heartbeats, in order."""
        return [type(message).__name__ for message in self.received if not isinstance(message, Heartbeat)]

    def last(self, kind: type[M]) -> M:
        return [message for message in self.received if isinstance(message, kind)][-1]

    def send(self, message: WorkerMessage) -> None:
        self.connection.send(message)

    def checked(self, problems: tuple[str, ...] = (), *, number: int | None = None, paths: int = 2) -> None:
        number = self.last(Table).round if number is None else number
        self.send(PreflightResult(number, problems, paths))


class Job:
    """A coordinator of three workers in ``phase``, rank 0's own among them, and a loop that a test turns."""

    def __init__(self, phase: str, **fields: Any) -> None:
        self.loop = EventLoop()
        self.spec = spec(Path("/nowhere"), 0, 3, loopback=True, phase=phase, **fields)
        self.events: list[dict[str, Any]] = []
        self.coordinator = Coordinator(self.loop, self.spec, RAILS, self.events.append, receipt.job)

    def join(self, rank: int, uid: str = "") -> Other:
        other = Other(self, rank, uid or f"u{rank}")
        self.turn()
        return other

    def close(self) -> None:
        self.coordinator.server.close()

    def turn(self, seconds: float = 0.05) -> None:
        self.loop.later(seconds, self.loop.stop)
        self.loop.run()

    def say(self, others: list[Other], what: Callable[[Other], None]) -> None:
        for other in others:
            what(other)
        self.turn()

    def texts(self, kind: str) -> list[str]:
        return [event["text"] for event in self.events if event["event"] == kind]
