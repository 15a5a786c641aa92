"""A coordinator with the other ends of its workers' connections, and a loop that the test turns."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.agents import spec
from torchnet.agent import receipt
from torchnet.agent.coordinator import Coordinator
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.framed_socket import FramedSocket
from torchnet.agent.rendezvous import JoinRequest
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow

RAILS = (Rail(0, "loopback", "lo", "127.0.0.1", 4, 8, 65536),)


class Other:
    """The other end of a worker's connection; it hears, and says what the test tells it to."""

    def __init__(self, job: Job, rank: int, uid: str, phase: str, known: str) -> None:
        ours, theirs = socket.socketpair()
        row = PeerRow(rank, f"run-{rank}", uid, (PeerRail("lo", f"127.0.0.{rank + 1}", 65536),))
        self.rank = rank
        self.heard: list[dict[str, Any]] = []
        self.gone = False
        self.frames = FramedSocket(job.loop, theirs, self.heard.append, self._cut)
        job.coordinator.add(ours, JoinRequest(row, job.told.run_id, job.told.nnodes, phase, known=known))

    def _cut(self) -> None:
        self.gone = True

    def ops(self) -> list[str]:
        return [message["op"] for message in self.heard if message["op"] != "beat"]

    def last(self, op: str) -> dict[str, Any]:
        return [message for message in self.heard if message["op"] == op][-1]

    def say(self, op: str, **fields: Any) -> None:
        self.frames.send({"op": op, **fields})

    def checked(self, problems: tuple[str, ...] = (), **fields: Any) -> None:
        self.say(
            "checked",
            **{"round": self.last("table")["round"], "problems": list(problems), "paths": 2, **fields},
        )

    def saved(self) -> None:
        self.say("saved", round=self.last("table")["round"])


class Job:
    """A coordinator of three workers in ``phase``, rank 0's own among them, and a loop that a test turns."""

    def __init__(self, phase: str, known: str = "", **fields: Any) -> None:
        self.loop = EventLoop()
        self.told = spec(Path("/nowhere"), 0, 3, loopback=True, phase=phase, **fields)
        self.phase = phase
        self.known = known
        self.events: list[dict[str, Any]] = []
        self.coordinator = Coordinator(self.loop, self.told, RAILS, self.events.append, receipt.job)

    def join(self, rank: int, uid: str = "", phase: str = "", known: str | None = None) -> Other:
        known = self.known if known is None else known
        other = Other(self, rank, uid or f"u{rank}", phase or self.phase, known)
        self.turn()
        return other

    def close(self) -> None:
        self.coordinator._door.close()

    def turn(self, seconds: float = 0.05) -> None:
        self.loop.later(seconds, self.loop.stop)
        self.loop.run()

    def say(self, others: list[Other], what: Callable[[Other], None]) -> None:
        for other in others:
            what(other)
        self.turn()

    def texts(self, kind: str) -> list[str]:
        return [event["text"] for event in self.events if event["event"] == kind]
