"""The workers that have joined, as rank 0 knows them, and their outstanding answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchnet.agent.message_socket import MessageSocket, pack_message
from torchnet.agent.messages import CoordinatorMessage, WorkerMessage
from torchnet.network.peer_table import PeerRow, PeerTable

Connection = MessageSocket[WorkerMessage]


@dataclass
class Member:
    """One worker.

    Attributes:
        address: of the worker's end of the connection.
        last_message_at: by the loop's clock.
    """

    row: PeerRow
    address: str
    last_message_at: float
    connection: Connection = field(init=False)  # its callbacks need the member


class Membership(dict[int, Member]):
    """Members by node rank."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: set[int] = set()

    def __delitem__(self, rank: int) -> None:
        super().__delitem__(rank)
        self._waiting.discard(rank)

    def expect_answers(self) -> None:
        """Expect an answer from each member."""
        self._waiting = set(self)

    def waits_for(self, member: Member) -> bool:
        """Return whether the member's answer in the current state is outstanding."""
        return member.row.node_rank in self._waiting and self.holds(member)

    def answered(self, member: Member) -> None:
        self._waiting.discard(member.row.node_rank)

    @property
    def all_answered(self) -> bool:
        return not self._waiting

    def holds(self, member: Member) -> bool:
        """Return whether ``member`` still holds its rank."""
        return self.get(member.row.node_rank) is member

    def table(self) -> PeerTable:
        return PeerTable(tuple(self[rank].row for rank in sorted(self)))

    def silent(self, since: float) -> list[Member]:
        """Return the members whose last message is older than ``since``."""
        return [member for member in self.values() if member.last_message_at < since]

    def broadcast(self, message: CoordinatorMessage, *, except_rank: int = -1) -> None:
        """Send to all members except node rank ``except_rank``."""
        data = pack_message(message)  # encode once for all
        for member in list(self.values()):
            if member.row.node_rank != except_rank:
                member.connection.send_packed(data)

    def drop(self, member: Member) -> None:
        """Remove a member and close its connection."""
        del self[member.row.node_rank]
        member.connection.close()
