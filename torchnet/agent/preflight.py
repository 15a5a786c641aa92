"""Phase 3: check the paths to the peers, rail i to rail i, at the rail's full packet size.

Neither Gloo nor NCCL binds the sockets that it connects with, so the kernel's routing table decides which card sends.
The preflight first looks up the route to each worker, which must leave through the rail, with the rail's address as
source. Then it sends each peer of the plan (torchnet.network.probe_plan) a datagram as large as the MTU, unfragmented,
which the peer answers. A smaller one distinguishes a path with a smaller MTU from a missing path.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Protocol

from torchnet import constants
from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.linux import rtnetlink
from torchnet.linux.netlink import Netlink
from torchnet.network import probe_plan
from torchnet.network.interface_selection import Rail
from torchnet.network.path_diagnosis import MOST_PATHS, LinkType, PathView
from torchnet.network.peer_table import PeerTable
from torchnet.text import listed

_HEADERS = {4: 28, 6: 48}  # IP and UDP
_SMALL = {4: 576, 6: 1280}  # every path of the family must carry this (RFC 791, RFC 8200)
_LARGEST = 65000  # lo's MTU is larger than any datagram
_WINDOW = 16  # unanswered probes at a time: all at once would not fit the peers' receive buffers
_RETRY_SECONDS = 0.15  # longer after each try; a new neighbour is still being resolved at the first
_PUMP_SECONDS = 0.02
# The check ends after this long without a new answer: 64 agents on two processors answer slowly.
_DEADLINE_SECONDS, _DEADLINE_SECONDS_EACH = 2.5, 0.02
_LATEST_SECONDS = 8.0
# Above 64 workers, all of them probe rank 0, whose receive buffer holds about 25 large datagrams by default. Each waits
# a random time first, so that this many arrive in a second.
_PROBES_PER_SECOND = 2000
_LOOK_UPS = 16  # of routes at a heartbeat
_TAG = 8
_HEAD = struct.Struct("!4sBHI")  # magic, request or reply, rail, number
_PROBE, _REPLY = 0, 1
_NAME_ONE = "name one network for all hosts: --network host:NETWORK/LENGTH"
_IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _PMTU_PROBE = 23, 62, 3


@dataclass
class _Probe:
    peer: int
    rail: int
    large: int = 0  # datagram numbers, which the replies repeat
    small: int = 0
    tries: int = 0
    due: float = 0.0  # by time.monotonic(): the next try
    answered: bool = False
    narrow: bool = False  # the small datagram was answered
    by_tcp: bool = False  # TCP reaches the peer, whereas datagrams do not
    strange: str = ""  # who answered instead


class TcpCheck(Protocol):
    """Tries whether paths, each a rail and a peer's address on it, carry TCP."""

    def check(
        self, paths: tuple[tuple[int, str], ...], done: Callable[[set[tuple[int, str]]], None]
    ) -> None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


class Preflight:
    """Answers the peers' probes while it is open, and sends its own in :meth:`check`.

    Args:
        tcp: on several hosts: a path that carries TCP, but not the datagrams, is enough.
    """

    def __init__(
        self,
        loop: EventLoop,
        key: bytes,
        rails: tuple[Rail, ...],
        *,
        port: int = constants.JOIN_PORT,
        loopback: bool = False,
        tcp: TcpCheck | None = None,
    ) -> None:
        self._loop = loop
        self._key = key
        self._rails = rails
        self._port = port
        self._loopback = loopback
        self._tcp = tcp
        self._probes: list[_Probe] = []
        self._heard: set[tuple[str, int]] = set()  # (address, rail) of the peers whose probes have arrived
        self._numbers: dict[int, _Probe] = {}
        self._pump: Timer | None = None
        self._done: Callable[[list[str]], None] | None = None
        self._warn: Callable[[str], None] = lambda _text: None
        self._sockets = [_socket(rail, port) for rail in rails]
        for number, sock in enumerate(self._sockets):
            loop.watch(sock, lambda number=number: self._read(number))  # type: ignore[misc]

    def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        if self._tcp is not None:
            self._tcp.close()
        for sock in self._sockets:
            self._loop.watch(sock)
            sock.close()
        self._sockets = []

    def cancel(self) -> None:
        """Cancel a running check; the peers' probes are still answered."""
        if self._pump is not None:
            self._pump.cancel()
        if self._tcp is not None:
            self._tcp.cancel()
        self._done = None

    def check(
        self,
        table: PeerTable,
        own: int,
        peers: tuple[int, ...],
        done: Callable[[list[str]], None],
        notice: Callable[[str], None] = lambda _text: None,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Look up the route to each worker, and probe ``peers`` (node ranks); without peers, neither.

        Args:
            done: gets a list with a sentence for each faulty path.
            notice: gets a warning if the job's peers may not fit the kernel's neighbour table.
            warn: gets a warning if paths carry TCP, but not these datagrams.
        """
        self._probes = []
        self._heard.clear()  # an unanswered probe is repeated, so that none is missed
        problems = [] if self._loopback or not peers else self._routes(table, own, notice)
        if problems or not peers:
            done(problems)
            return
        self._table, self._own, self._done, self._warn = table, own, done, warn
        self._probes = [_Probe(peer, rail) for peer in peers for rail in range(len(self._rails))]
        self._numbers = {}
        for probe in self._probes:
            probe.large, probe.small = (int.from_bytes(os.urandom(4), "big") for _ in range(2))
            self._numbers[probe.large] = self._numbers[probe.small] = probe
        spread = len(table.rows) / _PROBES_PER_SECOND if len(table.rows) > probe_plan.ALL_PAIRS else 0.0
        now, more = time.monotonic(), len(self._probes) * _DEADLINE_SECONDS_EACH + spread
        delay = random.uniform(0, spread)
        for probe in self._probes:
            probe.due = now + delay * (probe.peer == 0)
        self._deadline, self._latest = now + _DEADLINE_SECONDS + more, now + _LATEST_SECONDS + more
        self._pump = self._loop.every(_PUMP_SECONDS, self._send)
        self._send()

    def view(self, host: str) -> PathView | None:
        """Return what this worker saw of its paths at the last check, which failed; None if no peer was silent.

        Args:
            host: the name of this worker's node in the cluster, or "".
        """
        silent = tuple((p.peer, p.rail) for p in self._probes if not (p.answered or p.narrow or p.strange))
        if not silent:
            return None
        try:
            types = rtnetlink.link_types()
        except OSError:
            types = {}
        links = tuple(LinkType(*types.get(rail.interface, ("", "")), rail.prefix) for rail in self._rails)
        ranks = {
            (rail.address, number): row.node_rank
            for row in self._table.rows
            for number, rail in enumerate(row.rails)
        }
        heard = sorted({(ranks[one], one[1]) for one in self._heard if one in ranks})
        return PathView(host, links, silent[:MOST_PATHS], tuple(heard[:MOST_PATHS]))

    def _send(self) -> None:
        now = time.monotonic()
        if now > self._deadline:
            self._finish()
            return
        waiting = sum(1 for probe in self._probes if probe.tries and not probe.answered and probe.due > now)
        for probe in self._probes:
            if waiting >= _WINDOW:
                return
            if probe.answered or probe.due > now:
                continue
            waiting += 1
            probe.due = now + _RETRY_SECONDS * (probe.tries + 1) * random.uniform(0.75, 1.25)
            probe.tries += 1
            rail = self._rails[probe.rail]
            self._datagram(probe, probe.large, min(rail.mtu, _LARGEST))
            if probe.tries > 2:
                self._datagram(probe, probe.small, min(rail.mtu, _SMALL[rail.family]))

    def _datagram(self, probe: _Probe, number: int, size: int) -> None:
        rail = self._rails[probe.rail]
        body = self._packet(_PROBE, probe.rail, number, size - _HEADERS[rail.family])
        address = self._table.rows[probe.peer].rails[probe.rail].address
        with contextlib.suppress(OSError):  # retried; unanswered probes are reported at the end
            self._sockets[probe.rail].sendto(body, (address, self._port))

    def _finish(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        silent = [one for one in self._probes if not (one.answered or one.narrow or one.strange)]
        if self._tcp is None or not silent or self._done is None:
            self._end()
            return
        # Probably a filter: the job itself uses TCP.
        addresses = {(one.rail, self._table.rows[one.peer].rails[one.rail].address): one for one in silent}

        def tried(carried: set[tuple[int, str]]) -> None:
            for path in carried:
                addresses[path].by_tcp = True
            if carried:
                names = [self._table.rows[addresses[path].peer].name for path in sorted(carried)]
                self._warn(_filtered(self._table.rows[self._own].name, names, self._port))
            self._end()

        self._tcp.check(tuple(addresses), tried)

    def _end(self) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            done(self._problems(self._table, self._own))

    @property
    def proven(self) -> int:
        """The number of paths whose full packet size the last check has proved."""
        return sum(probe.answered for probe in self._probes)

    def _routes(self, table: PeerTable, own: int, notice: Callable[[str], None]) -> list[str]:
        index_names = dict(socket.if_nameindex())
        problems: list[str] = []
        neighbours = 0
        networks = [ip_network(f"{rail.address}/{rail.prefix}", strict=False) for rail in self._rails]
        with Netlink() as netlink:
            for row in table.rows:
                rails = zip(self._rails, networks, row.rails, strict=True) if row.node_rank != own else ()
                for rail, network, theirs in rails:
                    problem, direct = _look_up(
                        table.rows[own].name, row.name, rail, theirs.address, netlink, index_names
                    )
                    neighbours += direct
                    if problem and self._tcp and ip_address(theirs.address) not in network:
                        # Such a host may have taken its frontend for the backend, where no route may lead to the rail.
                        problem = f"{problem.partition('; fix: ')[0]}; fix: {_NAME_ONE}"
                    if problem:
                        problems.append(problem)
        with contextlib.suppress(OSError):
            limit = rtnetlink.neighbour_limit(self._rails[0].family)
            if neighbours > limit:
                notice(_full_table(table.rows[own].name, self._rails[0].family, neighbours, limit))
        return problems

    def _read(self, rail: int) -> None:
        sock = self._sockets[rail]
        for _ in range(256):
            try:
                data, sender = sock.recvfrom(1 << 16)
            except OSError:  # no more data, or an error of an earlier datagram (port unreachable)
                break
            if len(data) < _HEAD.size + _TAG:
                continue
            magic, kind, number_of_rail, number = _HEAD.unpack_from(data)
            if magic != b"tnet" or not hmac.compare_digest(
                data[_HEAD.size : _HEAD.size + _TAG], self._tag(data)
            ):
                continue
            if kind == _PROBE and number_of_rail == rail:
                self._heard.add((sender[0].partition("%")[0], rail))
                try:
                    sock.sendto(self._packet(_REPLY, rail, number, len(data)), sender)
                except OSError:
                    continue
            elif kind == _REPLY and number in self._numbers:
                probe = self._numbers[number]
                asked = self._table.rows[probe.peer].rails[probe.rail].address
                if not number_of_rail == probe.rail == rail or not _same(sender[0], asked):
                    probe.strange = f"rail {number_of_rail}, {sender[0]}"
                    continue
                if not probe.answered and (number == probe.large or not probe.narrow):
                    self._deadline = max(
                        self._deadline, min(self._latest, time.monotonic() + _DEADLINE_SECONDS)
                    )
                if number == probe.large:
                    probe.answered = True
                else:
                    probe.narrow = True
        if self._done is not None:
            if all(probe.answered for probe in self._probes):
                self._finish()
            else:
                self._send()

    def _problems(self, table: PeerTable, own: int) -> list[str]:
        problems = []
        for probe in self._probes:
            if probe.answered or probe.by_tcp:
                continue
            rail, theirs = self._rails[probe.rail], table.rows[probe.peer].rails[probe.rail]
            pair = (
                f"{table.rows[own].name} {rail.interface} to {table.rows[probe.peer].name} ({theirs.address})"
            )
            if probe.narrow:
                problems.append(
                    f"{pair}: reached at {_SMALL[rail.family]} bytes, not at the full {rail.mtu}: a link on the "
                    "path has a smaller MTU; fix: raise the MTU of the switch or of the parent card, or lower "
                    f"{rail.interface}'s on all workers"
                )
            elif probe.strange:
                problems.append(
                    f"{pair}: the reply came from {probe.strange}: something on the path changes addresses, so the "
                    "peers are not who they seem; fix: exempt the backend from NAT (masquerading)"
                )
            else:
                other = (
                    f"a firewall that drops UDP and TCP port {self._port}" if self._tcp else "a MAC filter"
                )
                problems.append(
                    f"{pair}: not reached from {rail.address} within {_DEADLINE_SECONDS:g} s; "
                    f"fix: ping -I {rail.interface} {theirs.address} on {table.rows[own].name}; check the switch, "
                    f"{other}, and whether the agent there still runs"
                )
        return problems

    def _packet(self, kind: int, rail: int, number: int, size: int) -> bytes:
        head = _HEAD.pack(b"tnet", kind, rail, number)
        return (head + self._tag(head)).ljust(size, b"\0")

    def _tag(self, data: bytes) -> bytes:
        return hmac.new(self._key, data[: _HEAD.size], hashlib.sha256).digest()[:_TAG]


def wrong_route(own: str, peer: str, rail: Rail, address: str) -> str:
    """Return the problem with the kernel's route from ``rail`` to a peer's ``address``, with the fix; or ""."""
    with Netlink() as netlink:
        return _look_up(own, peer, rail, address, netlink, dict(socket.if_nameindex()))[0]


class ReplyRoutes:
    """Looks up the routes to workers that connect to rank 0 but do not hear its reply, a few at each call.

    So many workers that join at once take little of the time in which they are accepted.
    """

    def __init__(self, own: str, rail: Rail) -> None:
        self._own, self._rail = own, rail
        self._good: set[str] = set()

    def problem(self, addresses: Iterable[str]) -> str:
        """Return the problem of a route to one of the addresses, with the fix; or ""."""
        waiting = set(addresses)
        self._good &= waiting
        chosen = sorted(waiting - self._good)[:_LOOK_UPS]
        if not chosen:
            self._good.clear()  # routes may change, so begin again
            return ""
        names = dict(socket.if_nameindex())
        with Netlink() as netlink:
            for address in chosen:
                problem, _ = _look_up(self._own, "a worker that joins", self._rail, address, netlink, names)
                if problem:
                    return problem
                self._good.add(address)
        return ""


def _look_up(
    own: str, peer: str, rail: Rail, address: str, netlink: Netlink, index_names: dict[int, str]
) -> tuple[str, bool]:
    """Return the problem with a route or "", and whether the peer is a neighbour."""
    pair = f"{own} to {peer} ({address})"
    fix = f"fix: ip route replace {address} dev {rail.interface} src {rail.address}"
    try:
        route = rtnetlink.route(address, netlink, names=index_names)
    except OSError as error:
        return f"{pair}: no route: {error.strerror}; {fix}", False
    if route.interface == rail.interface and route.source == rail.address:
        return "", route.direct
    return (
        f"{pair}: the route leaves through {route.interface} with source {route.source or 'none'}, not through "
        f"{rail.interface} with {rail.address}; {fix}",
        route.direct,
    )


def _same(sender: str, address: str) -> bool:
    """Return whether a datagram's sender, perhaps with a scope, has an address of the table."""
    return ip_address(sender.partition("%")[0]) == ip_address(address)


def _filtered(own: str, peers: list[str], port: int) -> str:
    return (
        f"{own}: UDP port {port} of {listed(peers, 8)} does not answer, but TCP does, so UDP seems to be filtered: the "
        f"packet size is not checked there; fix: admit UDP port {port} between the hosts"
    )


def _full_table(own: str, family: int, neighbours: int, limit: int) -> str:
    name = f"net.ipv{family}.neigh.default.gc_thresh3"
    return (
        f"{own}: the job has {neighbours:,} neighbours on the rails, but the kernel keeps at most {limit:,} for the "
        f"whole host ({name}). If each worker connects to each other one, connections fail or are slow; "
        f"fix: sysctl -w {name}={2 * neighbours} on each host"
    )


def _socket(rail: Rail, port: int) -> socket.socket:
    family = rtnetlink.family_of(rail.address)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTU_PROBE)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, 10, _PMTU_PROBE)  # IP_MTU_DISCOVER
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    sock.bind((rail.address, port))
    sock.setblocking(False)
    return sock
