"""The traffic account of a worker in its host's network, where other processes have connections to the same peers."""

from __future__ import annotations

import time
from collections.abc import Container

from torchnet.agent.accounting import UNKNOWN_INTERFACE, Flow, TrafficAccount, TrafficTotals
from torchnet.agent.socket_owners import SocketOwners
from torchnet.linux import sock_diag
from torchnet.linux.sock_diag import SocketBytes
from torchnet.network.peer_table import PeerTable

_LEAST_SECONDS, _MOST_SECONDS, _LOOK_LOAD = 0.1, 5.0, 0.02  # the last: of a core
# At first a job opens most of its connections, and a short job closes them soon.
_EARLY_SECONDS, _EARLY_LEAST_SECONDS, _EARLY_LOAD = 60.0, 0.03, 0.1


class HostTrafficAccount(TrafficAccount):
    """Counts the connections of this worker's processes.

    A connection to a peer whose owner is not known may be theirs or not, so it widens the bounds.
    """

    def __init__(self, table: PeerTable, own_rank: int, control: Container[int]) -> None:
        super().__init__(table, own_rank, control)
        self._early_until = time.monotonic() + _EARLY_SECONDS
        self._owners = SocketOwners(sock_diag.dump(), sock_diag.listening())

    def look(self, *, last: bool = False) -> float:
        """Learn the owners of the connections that are open now; return the seconds until the next call."""
        began = time.thread_time()
        self._owners.look(sock_diag.dump(), sock_diag.listening(), last=last)
        spent = time.thread_time() - began - self._owners.search_seconds
        if time.monotonic() < self._early_until:
            return min(_MOST_SECONDS, max(_EARLY_LEAST_SECONDS, spent / _EARLY_LOAD))
        return min(_MOST_SECONDS, max(_LEAST_SECONDS, spent / _LOOK_LOAD))

    def read(self) -> TrafficTotals:
        """Return the account up to now."""
        self.look()
        return super().read()

    def settle(self) -> TrafficTotals:
        """Return the account at the end."""
        self.look(last=True)
        return super().settle()

    def _concerns(self, cookie: int) -> bool:
        return super()._concerns(cookie) and not self._owners.is_another(cookie)

    def _count(self, traffic: TrafficTotals, socket: SocketBytes) -> None:
        owner, _ = self._owners.owner(socket)
        if traffic is self._gone:
            self._owners.forget(socket.cookie)
        peer = self._peers.get(socket.remote)
        if owner == "job" or socket.cookie in self._control or (owner == "unknown" and peer is None):
            super()._count(traffic, socket)
            return
        interface = self._interfaces.get(socket.local, UNKNOWN_INTERFACE)
        if interface == "lo" or peer == self._own_rank:
            return
        # The interface has counted it. Others' connections are no more of interest than torchnet's own.
        flow = Flow()
        flow.add(socket, self._base.get(socket.cookie))
        traffic.control.setdefault(interface, Flow()).merge(flow)
        if owner == "unknown":
            traffic.unowned[interface] = traffic.unowned.get(interface, 0) + flow.total
