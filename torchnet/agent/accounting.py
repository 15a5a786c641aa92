"""Traffic accounting of one worker, from two independent sources in the kernel.

1. The byte counts of each TCP connection, by remote address: how much was exchanged with which peer.
2. The counters of each interface, which also include headers and everything that is not TCP.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field
from typing import Literal

from torchnet.agent import share_bounds
from torchnet.linux import protocol_counters, rtnetlink, sock_diag
from torchnet.linux.protocol_counters import ProtocolCounters
from torchnet.linux.rtnetlink import Counters
from torchnet.network.peer_table import PeerTable, owners

# Upper bound of the header bytes that an interface counts per segment: Ethernet, IPv6, TCP with options.
HEADER_BYTES = 14 + 40 + 60
UNKNOWN_INTERFACE = "unknown"  # of a connection whose addresses do not tell which one it uses
_LEAST_TCP_HEADER = 20 + 20
_QUIET_SECONDS, _SETTLE_SECONDS = 0.03, 0.5
# Of a core: one reading takes 10 µs per connection, on rank 0 of 1,000 workers with 8 processes each 0.1 s, so readings
# are then less frequent.
READING_LOAD = 0.005


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
    connections: int = 0

    def add(self, socket: sock_diag.SocketBytes, base: sock_diag.SocketBytes | None = None) -> None:
        def since(field: str) -> int:
            return int(getattr(socket, field)) - (int(getattr(base, field)) if base else 0)

        sent, received = since("sent_bytes"), since("received_bytes")
        self.connections += 1
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
        headers: the least IP and TCP headers of a packet, by own interface.
        protocols: the namespace's counters of protocols; None if they cannot be read.
        unowned: bytes with peers in connections that may be another job's, by interface.
        vanished: interfaces that have left the network namespace, with counts that nobody can read.
    """

    peers: dict[tuple[int, str], Flow] = field(default_factory=dict)
    others: dict[str, Flow] = field(default_factory=dict)
    control: dict[str, Flow] = field(default_factory=dict)
    counters: dict[str, Counters] = field(default_factory=dict)
    complete: bool = True
    headers: dict[str, int] = field(default_factory=dict)
    protocols: ProtocolCounters | None = None
    unowned: dict[str, int] = field(default_factory=dict)
    vanished: tuple[str, ...] = ()

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

    def peers_on(self, interface: str) -> Flow:
        """Sum the flows with peers on an interface."""
        total = Flow()
        for (_, name), flow in self.peers.items():
            if name == interface:
                total.merge(flow)
        return total

    def payload(self, backend: Collection[str]) -> share_bounds.PeerPayload:
        """Return the limits of the payload with peers; ``backend`` has the rails' interfaces."""
        backend = rtnetlink.above(self.counters, backend)
        counters = {
            name: counter
            for name, counter in self.counters.items()
            if name != "lo" and (name in backend or not counter.master)
        }
        flows = {name: (self.peers_on(name), self.on_interface(name)) for name in counters}
        lost = not self.complete or bool(self.protocols and self.protocols.mptcp_connections)

        def direction(way: Literal["sent", "received"], repeated: str, ends: str) -> share_bounds.Observation:
            def count(record: object, what: str) -> int:
                return int(getattr(record, f"{way}_{what}"))

            seen = []
            for name, (peers, all_flows) in flows.items():
                own = counters[name].without(one for one in self.counters.values() if one.lower == name)
                seen.append(
                    share_bounds.Interface(
                        name,
                        backend=name in backend,
                        bytes=count(own, "bytes"),
                        packets=count(own, "packets"),
                        peers=count(peers, "bytes"),
                        rest=count(all_flows, "bytes") - count(peers, "bytes"),
                        ends=getattr(peers, ends) if ends else 0,
                        repeated=getattr(all_flows, repeated),
                        segments=all_flows.segments_out if way == "sent" else all_flows.segments_in,
                        tcp_header=_LEAST_TCP_HEADER if lost else self.headers.get(name, _LEAST_TCP_HEADER),
                        link_header=own.link_header,
                    )
                )
            protocols = self.protocols
            return share_bounds.Observation(
                seen,
                unplaced=sum(
                    count(flow, "bytes") for (_, name), flow in self.peers.items() if name not in flows
                ),
                datagrams=getattr(protocols, f"datagrams_{way}") if protocols else None,
                other_packets=getattr(protocols, f"other_packets_{way}") if protocols else 0,
                sockets_lost=lost,
            )

        observations = (
            direction("sent", "resent_bytes", ""),
            direction("received", "repeated_bytes", "connections"),
        )
        return share_bounds.payload(observations, self.peer_bytes()) + self._unowned(backend)

    def _unowned(self, backend: Collection[str]) -> share_bounds.PeerPayload:
        over, aside = (
            sum(count for name, count in self.unowned.items() if (name in backend) == here)
            for here in (True, False)
        )
        return share_bounds.PeerPayload(
            0,
            over,
            0,
            aside,
            tuple(share_bounds.Unattributed(name, count, "unowned") for name, count in self.unowned.items()),
        )


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
        self._rail_addresses: set[str] = set()
        self._own_rails: set[str] = set()
        self.learn(table)
        self._interfaces = _by_address()
        self._base = {socket.cookie: socket for socket in sock_diag.dump()}
        self._counters = rtnetlink.counters()
        self._latest = dict(self._counters)
        self._protocols = protocol_counters.read()
        self._paused_at: ProtocolCounters | None = None
        self._open: dict[int, sock_diag.SocketBytes] = {}
        self._closing: dict[int, sock_diag.SocketBytes] = {}  # no longer open, final counts not yet received
        self._gone = TrafficTotals()  # sums of closed connections, which are not kept
        self._next_reading = 0.0
        self.latest_peer_bytes = 0
        """The bytes exchanged with peers until the last `refresh`."""

    def learn(self, table: PeerTable) -> None:
        """Add the workers' addresses; those of earlier attempts stay known."""
        self._peers.update(owners(table))
        self._rail_addresses |= {rail.address for row in table.rows for rail in row.rails}
        own = (row for row in table.rows if row.node_rank == self._own_rank)
        self._own_rails |= {rail.interface for row in own for rail in row.rails}

    def poll(self) -> None:
        """Add the final counts of connections that have closed."""
        for socket in self.closed.read():
            self._forget(socket.cookie)
            self._count(self._gone, socket)
        for cookie in self.closed.closed_without_counts:
            last = self._forget(cookie)  # a reset clears the counts: use the last reading, if there is one
            if last is not None:
                self._count(self._gone, last)
            if self._concerns(cookie):
                self._gone.complete = False
        self.closed.closed_without_counts.clear()

    def pause(self) -> None:
        """Count no UDP until :meth:`resume`: no process runs, and torchnet checks the paths again."""
        self._paused_at = protocol_counters.read()

    def resume(self) -> None:
        """Count UDP again."""
        now = protocol_counters.read()
        if self._paused_at is not None and now is not None and self._protocols is not None:
            self._protocols = self._protocols.plus(now.since(self._paused_at))
        self._paused_at = None

    def _concerns(self, cookie: int) -> bool:
        """Return whether a connection can be the job's."""
        return cookie not in self._control

    def _forget(self, cookie: int) -> sock_diag.SocketBytes | None:
        return self._open.pop(cookie, None) or self._closing.pop(cookie, None)

    def settle(self) -> TrafficTotals:
        """Return the account at the end.

        The kernel reports closed connections from a work queue (net/core/sock_diag.c), shortly after they have left
        the dump, so wait until no more arrive.
        """
        self._wait()
        traffic = self.read()
        if self._closing:
            self._wait()
            traffic = self.read()
            traffic.complete = traffic.complete and not self._closing
        return traffic

    def _wait(self) -> None:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while select.select([self.closed], [], [], _QUIET_SECONDS)[0] and time.monotonic() < deadline:
            self.poll()

    def refresh(self) -> bool:
        """Read `latest_peer_bytes` anew, unless readings take too much CPU time; return whether that was done."""
        if time.monotonic() < self._next_reading:
            return False
        began = time.thread_time()
        self.latest_peer_bytes = self.read().peer_bytes()
        self._next_reading = time.monotonic() + (time.thread_time() - began) / READING_LOAD
        return True

    def read(self) -> TrafficTotals:
        """Return the account up to now."""
        self.poll()
        with contextlib.suppress(OSError):
            self._interfaces.update(_by_address())
        dumped = {socket.cookie: socket for socket in sock_diag.dump()}
        for cookie, last in self._open.items():
            now = dumped.get(cookie)
            if now and (now.tried_bytes < last.tried_bytes or now.received_bytes < last.received_bytes):
                # connect(AF_UNSPEC) cleared the counts, and the process uses the socket for another connection.
                self._count(self._gone, last)
                self._gone.complete = False
                self._base.pop(cookie, None)
        self._closing |= {cookie: socket for cookie, socket in self._open.items() if cookie not in dumped}
        self._open = dumped
        traffic = TrafficTotals(complete=self._gone.complete and not self.closed.lost)
        _merge(traffic, self._gone)
        for socket in (*self._open.values(), *self._closing.values()):
            self._count(traffic, socket)
        counters = rtnetlink.counters()
        addressed = {name for address, name in self._interfaces.items() if not address.startswith("fe80:")}
        traffic.vanished = rtnetlink.vanished(self._counters, counters, addressed)
        self._latest |= counters  # an interface that is gone keeps its last reading
        traffic.counters = {
            name: counter.since(self._counters.get(name, Counters(0, 0)))
            for name, counter in self._latest.items()
        }
        protocols = protocol_counters.read()
        if protocols is not None and self._protocols is not None:
            traffic.protocols = protocols.since(self._protocols)
        return traffic

    @property
    def closed_peer_bytes(self) -> int:
        """The bytes exchanged with peers over connections that have closed."""
        return self._gone.peer_bytes()

    def peer_sockets(self, store_port: int) -> list[tuple[int, int, bool]]:
        """Return the sockets to peers that were open at the last :meth:`read`, for `torchnet.agent.progress_meter`."""
        found = []
        for socket in self._open.values():
            peer = self._peers.get(socket.remote)
            if peer is None or peer == self._own_rank or not self._concerns(socket.cookie):
                continue
            port = socket.remote_port if peer == 0 else socket.local_port if self._own_rank == 0 else 0
            payload = socket.sent_bytes + socket.received_bytes
            if base := self._base.get(socket.cookie):
                payload -= base.sent_bytes + base.received_bytes
            found.append((socket.cookie, payload, port == store_port))
        return found

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
        interface = self._interfaces.get(socket.local, UNKNOWN_INTERFACE)
        peer = self._peers.get(socket.remote)
        if interface == "lo" or peer == self._own_rank:
            return  # within the worker
        header = traffic.headers.get(interface, socket.header)
        traffic.headers[interface] = min(header, socket.header)
        base = self._base.get(socket.cookie)
        if socket.cookie in self._control:
            traffic.control.setdefault(interface, Flow()).add(socket, base)
        elif peer is None:
            traffic.others.setdefault(interface, Flow()).add(socket, base)
        else:
            if self._crosses(socket.remote, interface):
                interface = UNKNOWN_INTERFACE
            traffic.peers.setdefault((peer, interface), Flow()).add(socket, base)

    def _crosses(self, remote: str, interface: str) -> bool:
        """Return whether one end has an address of the backend, and the other does not."""
        if remote.startswith("fe80:"):
            return False  # valid on one link alone
        return (remote in self._rail_addresses) != (interface in self._own_rails)


def _merge(into: TrafficTotals, other: TrafficTotals) -> None:
    into.headers |= other.headers
    into.unowned |= other.unowned
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
