"""The workers that have joined, as rank 0 knows them, and what each state waits for: an answer of each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from torchnet.agent.framed_socket import FramedSocket, Message, pack
from torchnet.network.peer_table import PeerRow, PeerTable


@dataclass
class Member:
    """One worker.  ``known`` is the fingerprint of the table that it has verified."""

    row: PeerRow
    frames: FramedSocket
    phase: str = "all"
    known: str = ""
    heard: float = field(default_factory=time.monotonic)
    waiting: bool = False  # for its next answer in the present state
    receipt: dict[str, Any] | None = None
    codes: dict[str, int] = field(default_factory=dict)


class Membership(dict[int, Member]):
    """Members by node rank."""

    def wait(self) -> None:
        """An answer of each is expected from now on."""
        for member in self.values():
            member.waiting = True

    def answered(self, member: Member) -> bool:
        """``member`` has answered; whether all have."""
        member.waiting = False
        return self.complete()

    def complete(self) -> bool:
        return not any(member.waiting for member in self.values())

    def holds(self, member: Member) -> bool:
        """Whether it is still the one with its rank."""
        return self.get(member.row.node_rank) is member

    def table(self) -> PeerTable:
        return PeerTable(tuple(self[rank].row for rank in sorted(self)))

    def tell(self, message: Message, *, but: int = -1) -> None:
        """Send to all; ``but`` leaves a node rank out."""
        packed = pack(message)  # once: the table is the same for all
        for member in list(self.values()):
            if member.row.node_rank != but:
                member.frames.send_packed(packed)

    def drop(self, member: Member) -> None:
        """It does not count any more, and is not listened to."""
        del self[member.row.node_rank]
        member.frames.close()
