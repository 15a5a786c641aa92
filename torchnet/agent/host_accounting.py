"""The traffic account of a worker in its host's network, where other processes have connections to the same peers."""

from __future__ import annotations

from collections.abc import Collection, Container

from torchnet.agent.accounting import TrafficAccount, TrafficTotals
from torchnet.agent.socket_owners import SocketOwners
from torchnet.linux import sock_diag
from torchnet.linux.sock_diag import SocketBytes
from torchnet.network.peer_table import PeerTable


class HostTrafficAccount(TrafficAccount):
    """Counts the connections of this worker's processes.

    A connection whose owner is not known may be theirs or not. It counts against the backend only: its bytes over
    another interface count, those over a rail do not, and the account is incomplete.

    Args:
        rails: The interfaces of the backend.
    """

    def __init__(
        self, table: PeerTable, own_rank: int, control: Container[int], rails: Collection[str]
    ) -> None:
        super().__init__(table, own_rank, control)
        self._rails = frozenset(rails)
        self._owners = SocketOwners(sock_diag.dump(), sock_diag.listening())

    def read(self) -> TrafficTotals:
        """Return the account up to now."""
        self._owners.look(sock_diag.dump(), sock_diag.listening())
        return super().read()

    def _count(self, traffic: TrafficTotals, socket: SocketBytes) -> None:
        owner, _ = self._owners.owner(socket)
        if traffic is self._gone:
            self._owners.forget(socket.cookie)
        if socket.cookie not in self._control:
            if owner == "other":
                return
            if owner == "unknown" and self._peers.get(socket.remote) not in (None, self._own_rank):
                traffic.complete = False
                if self._interfaces.get(socket.local) in self._rails:
                    return
        super()._count(traffic, socket)
