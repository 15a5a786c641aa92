"""Traffic accounting of one worker, from two independent sources in the kernel.

1. The byte counts of each TCP connection, by remote address: how much was exchanged with which peer.
2. The counters of each interface, which also include headers and everything that is not TCP.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from torchnet.linux import rtnetlink, sock_diag
from torchnet.linux.rtnetlink import Counters
from torchnet.network.peer_table import PeerTable, owners

# Upper bound of the header bytes that an interface counts per segment: Ethernet, IPv6, TCP with options.
HEADER_BYTES = 14 + 40 + 60
# Part of a core for readings while the job runs. One takes 10 µs per connection: on rank 0 of 1,000 workers with 8
# processes each, 0.1 s.
_CPU_SHARE = 0.005
_QUIET_SECONDS, _SETTLE_SECONDS = 0.03, 0.5


@dataclass
class Flow:
    """Bytes in both directions, and the segments that carried them.

    ``resent_bytes`` and ``repeated_bytes`` were possibly counted twice by the interface, because segments were lost or
    late. The kernel does not count repeated bytes. Their upper bound is the capacity of the received data segments
    minus the payload, and never more than the payload, so that small segments hide little.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    segments_out: int = 0
    segments_in: int = 0
    resent_bytes: int = 0
    repeated_bytes: int = 0

    def add(self, socket: sock_diag.SocketBytes, base: sock_diag.SocketBytes | None = None) -> None:
        def since(field: str) -> int:
            return int(getattr(socket, field)) - (int(getattr(base, field)) if base else 0)

        sent, received = since("sent_bytes"), since("received_bytes")
        self.sent_bytes += sent
        self.received_bytes += received
        self.segments_out += since("segments_out")
        self.segments_in += since("segments_in")
        self.resent_bytes += max(0, since("tried_bytes") - sent)
        self.repeated_bytes += min(received, max(0, since("data_segments_in") * socket.mss - received))

    def merge(self, other: Flow) -> None:
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)

    @property
    def total(self) -> int:
        return self.sent_bytes + self.received_bytes


@dataclass
class TrafficTotals:
    """Traffic since the account was opened.

    Attributes:
        peers: TCP flows with other workers, by (peer's node rank, own interface).
        others: TCP flows with hosts outside the job, by own interface.
        control: torchnet's own connections, by own interface.
        counters: the interface counters.
        complete: whether the TCP counts include every connection.
    """

    peers: dict[tuple[int, str], Flow] = field(default_factory=dict)
    others: dict[str, Flow] = field(default_factory=dict)
    control: dict[str, Flow] = field(default_factory=dict)
    counters: dict[str, Counters] = field(default_factory=dict)
    complete: bool = True

    def on_interface(self, interface: str) -> Flow:
        """Sum all TCP flows on an interface."""
        total = Flow()
        flows = [flow for (_, name), flow in self.peers.items() if name == interface]
        flows += [table[interface] for table in (self.others, self.control) if interface in table]
        for flow in flows:
            total.merge(flow)
        return total

    def peer_bytes(self) -> int:
        return sum(flow.total for flow in self.peers.values())


class TrafficAccount:
    """A traffic account, opened right before the processes start.

    Call :meth:`poll` when ``closed`` is readable, and :meth:`read` at any time.

    Args:
        control: cookies of torchnet's own sockets; add each one before its socket closes.
    """

    def __init__(self, table: PeerTable, own_rank: int, control: Container[int]) -> None:
        self.closed = sock_diag.Destroyed()
        self._own_rank = own_rank
        self._control = control
        self._peers: dict[str, int | None] = {}
        self.learn(table)
        self._interfaces = _by_address()
        self._base = {socket.cookie: socket for socket in sock_diag.dump()}
        self._counters = rtnetlink.counters()
        self._open: dict[int, sock_diag.SocketBytes] = {}
        self._seen: dict[int, sock_diag.SocketBytes] = {}  # sockets open in the last two reads
        self._recent: TrafficTotals | None = None
        self._recent_until = 0.0
        self._gone = TrafficTotals()  # sums of closed connections, which are not kept

    def learn(self, table: PeerTable) -> None:
        """Add the workers' addresses; those of earlier attempts stay known."""
        self._peers.update(owners(table))

    def poll(self) -> None:
        """Add the final counts of connections that have closed."""
        for socket in self.closed.read():
            self._count(self._gone, socket)
        for cookie in self.closed.closed_without_counts:
            if cookie in self._seen:  # a reset clears the counts: use the last reading
                self._count(self._gone, self._seen.pop(cookie))
                self._gone.complete = False
        self.closed.closed_without_counts.clear()

    def settle(self) -> TrafficTotals:
        """Return the account at the end.

        The kernel reports closed connections from a work queue (net/core/sock_diag.c), shortly after they have left
        the dump, so wait until no more arrive.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while select.select([self.closed], [], [], _QUIET_SECONDS)[0] and time.monotonic() < deadline:
            self.poll()
        return self.read()

    def read(self) -> TrafficTotals:
        """Return the account up to now."""
        self.poll()
        traffic = TrafficTotals(complete=self._gone.complete and not self.closed.lost)
        _merge(traffic, self._gone)
        with contextlib.suppress(OSError):
            self._interfaces.update(_by_address())
        before, self._open = self._open, {socket.cookie: socket for socket in sock_diag.dump()}
        self._seen = before | self._open
        for socket in self._open.values():
            self._count(traffic, socket)
        now = rtnetlink.counters()
        for name, counter in now.items():
            base = self._counters.get(name, Counters(0, 0))
            traffic.counters[name] = Counters(
                counter.sent_bytes - base.sent_bytes, counter.received_bytes - base.received_bytes
            )
        return traffic

    def recent(self) -> TrafficTotals:
        """Return a reading that is at most as old as :data:`_CPU_SHARE` requires."""
        if self._recent is None or time.monotonic() >= self._recent_until:
            began = time.thread_time()
            self._recent = self.read()
            self._recent_until = time.monotonic() + (time.thread_time() - began) / _CPU_SHARE
        return self._recent

    def stuck(self, table: PeerTable, own: str) -> list[str]:
        """Return a sentence for each peer that does not acknowledge data."""
        waiting: dict[tuple[int, str], int] = {}
        for socket in sock_diag.dump():
            peer = self._peers.get(socket.remote)
            if peer is not None and peer != self._own_rank and socket.unacknowledged and socket.backoff > 1:
                key = peer, self._interfaces.get(socket.local, "?")
                waiting[key] = waiting.get(key, 0) + socket.unacknowledged
        return [
            f"{own}: {count} packets to {table.rows[peer].name} over {interface} are unacknowledged: "
            "the path loses packets"
            for (peer, interface), count in sorted(waiting.items())
        ]

    def close(self) -> None:
        self.closed.close()

    def _count(self, traffic: TrafficTotals, socket: sock_diag.SocketBytes) -> None:
        interface = self._interfaces.get(socket.local, "")
        peer = self._peers.get(socket.remote)
        if interface in ("", "lo") or peer == self._own_rank:
            return  # within the worker
        base = self._base.get(socket.cookie)
        if socket.cookie in self._control:
            traffic.control.setdefault(interface, Flow()).add(socket, base)
        elif peer is None:
            traffic.others.setdefault(interface, Flow()).add(socket, base)
        else:
            traffic.peers.setdefault((peer, interface), Flow()).add(socket, base)


def _merge(into: TrafficTotals, other: TrafficTotals) -> None:
    for key, flow in other.peers.items():
        into.peers[key] = Flow(**vars(flow))
    for name, flow in other.others.items():
        into.others[name] = Flow(**vars(flow))
    for name, flow in other.control.items():
        into.control[name] = Flow(**vars(flow))


def _by_address() -> dict[str, str]:
    pairs: Iterable[tuple[str, str]] = (
        (address.ip, name)
        for name, interface in rtnetlink.interfaces().items()
        for address in interface.addresses
    )
    return dict(pairs)
