"""The workers that have joined, as rank 0 knows them, and their outstanding answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from torchnet.agent.framed_socket import FramedSocket, Message, pack
from torchnet.network.peer_table import PeerRow, PeerTable


@dataclass
class Member:
    """One worker. ``known`` is the fingerprint of the table that it has verified."""

    row: PeerRow
    frames: FramedSocket
    phase: str = "all"
    known: str = ""
    heard: float = field(default_factory=time.monotonic)
    waiting: bool = False  # its answer in the current state is outstanding
    receipt: dict[str, Any] | None = None
    codes: dict[str, int] = field(default_factory=dict)


class Membership(dict[int, Member]):
    """Members by node rank."""

    def wait(self) -> None:
        """Expect an answer from each member."""
        for member in self.values():
            member.waiting = True

    def answered(self, member: Member) -> bool:
        """Record an answer; return whether all have answered."""
        member.waiting = False
        return self.complete()

    def complete(self) -> bool:
        return not any(member.waiting for member in self.values())

    def holds(self, member: Member) -> bool:
        """Return whether ``member`` still holds its rank."""
        return self.get(member.row.node_rank) is member

    def table(self) -> PeerTable:
        return PeerTable(tuple(self[rank].row for rank in sorted(self)))

    def tell(self, message: Message, *, but: int = -1) -> None:
        """Send to all members except node rank ``but``."""
        packed = pack(message)  # encode once for all
        for member in list(self.values()):
            if member.row.node_rank != but:
                member.frames.send_packed(packed)

    def drop(self, member: Member) -> None:
        """Remove a member and close its connection."""
        del self[member.row.node_rank]
        member.frames.close()
