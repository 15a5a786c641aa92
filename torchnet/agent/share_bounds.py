"""Bounds of the backend's share, from what one worker's interfaces and sockets counted. Pure arithmetic.

A byte that no socket accounts for could have gone to a peer or to anyone else. So it lowers the lower bound if it may
have gone to a peer outside the backend, and raises the upper bound if it may have gone to a peer over the backend.

What the interfaces have left is an upper limit, since each packet has at least certain headers. What the protocols'
own counters allow is another limit: without UDP and with all TCP sockets counted, the rest can only be headers,
retransmissions, or what bypasses the protocols (packet sockets), to which the slack applies.

Two things are taken as given: sockets with both ends on one network use it unless an interface counted too little for
its sockets, and an interface counts bytes and packets at the same place (so not with LRO, which is off by default).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Reason = Literal[
    "datagrams",
    "sockets-lost",
    "counters-lost",
    "unplaced",
    "moved",
    "uncounted",
    "remainder",
    "rdma-headers",
    "rdma-shared",
    "rdma-stray",
    "unowned",
    "unnamed",
]

SLACK_BYTES = 128 << 10  # neighbour discovery and similar traffic
_SLACK_SHARE = 0.005  # of the bytes exchanged with peers
_LEAST_HEADER = 20  # IPv4: a fragment's
_LEAST_TCP_HEADER = 20 + 20  # IPv4 and TCP, without options
MOST_HEADER = 14 + 4 + 4 + 40 + 60  # Ethernet with VLAN tag and FCS, IPv6, TCP with options
_LARGEST_DATAGRAM = 65_527  # payload of UDP over IPv6
_PACKETS_PER_DATAGRAM = 64  # UDP_MAX_SEGMENTS (include/linux/udp.h): a card counts each segment


@dataclass(frozen=True)
class Interface:
    """One direction of an interface.

    Attributes:
        bytes: counted by the interface, with headers.
        packets: counted by the interface. Segments that the kernel leaves to the card may count as one packet; they
            then have one header in ``bytes``.
        peers: payload of TCP with peers, by socket.
        rest: payload of all other TCP, by socket.
        ends: the most bytes of ``peers`` that are ends of streams: the kernel counts each as a received byte.
        repeated: payload that the interface may have counted more than once.
        segments: of all TCP by socket; None if they are not known. Packets beyond these belong to no known socket.
        tcp_header: the least IP and TCP headers of a packet here.
        link_header: the least link header that ``bytes`` has of each packet.
    """

    name: str
    backend: bool
    bytes: int
    packets: int
    peers: int = 0
    rest: int = 0
    ends: int = 0
    repeated: int = 0
    segments: int | None = None
    tcp_header: int = 20 + 20
    link_header: int = 0


@dataclass(frozen=True)
class Observation:
    """One direction of a worker.

    Attributes:
        unplaced: payload of TCP with peers whose interface is unknown.
        datagrams: UDP datagrams; None if their count is unknown.
        other_packets: IP packets other than TCP and UDP, and fragments.
        sockets_lost: whether sockets closed without their counts.
    """

    interfaces: Sequence[Interface]
    unplaced: int = 0
    datagrams: int | None = 0
    other_packets: int = 0
    sockets_lost: bool = False


@dataclass(frozen=True)
class Unattributed:
    """Bytes of an interface that may or may not have been exchanged with peers."""

    interface: str
    bytes: int
    reason: Reason


@dataclass(frozen=True)
class PeerPayload:
    """Limits of the payload exchanged with peers, over the backend and over something else."""

    backend_low: int = 0
    backend_high: int = 0
    elsewhere_low: int = 0
    elsewhere_high: int = 0
    unattributed: tuple[Unattributed, ...] = ()

    def __add__(self, other: PeerPayload) -> PeerPayload:
        return PeerPayload(
            self.backend_low + other.backend_low,
            self.backend_high + other.backend_high,
            self.elsewhere_low + other.elsewhere_low,
            self.elsewhere_high + other.elsewhere_high,
            self.unattributed + other.unattributed,
        )


def share(payload: PeerPayload) -> tuple[float, float] | None:
    """Return the bounds of the share, rounded outward to 6 decimals; None if no payload was seen."""
    if not payload.backend_low + payload.elsewhere_high:
        return None
    least = payload.backend_low / (payload.backend_low + payload.elsewhere_high)
    all_at_most = payload.backend_high + payload.elsewhere_low
    most = payload.backend_high / all_at_most if all_at_most else 0.0
    # 0.3 * 10**6 is below 300,000: tolerate what float division loses, but round no other share up to 1.
    low, high = math.floor(least * 1e6 + 1e-7), math.ceil(most * 1e6 - 1e-7)
    low = min(low, 10**6 - 1) if payload.elsewhere_high else low
    return low / 1e6, max(low, high, 1 if payload.backend_high else 0) / 1e6


def payload(directions: Iterable[Observation], peer_bytes: int) -> PeerPayload:
    """Return the limits for one worker; ``peer_bytes`` is its TCP payload with peers, in both directions."""
    observations = list(directions)
    slack = max(SLACK_BYTES, _SLACK_SHARE * peer_bytes) / len(observations)
    return sum((_direction(one, int(slack)) for one in observations), PeerPayload())


def _direction(seen: Observation, slack: int) -> PeerPayload:
    backend = [one for one in seen.interfaces if one.backend]
    elsewhere = [one for one in seen.interfaces if not one.backend]
    on_backend, on_others = sum(one.peers for one in backend), sum(one.peers for one in elsewhere)
    backend_low, elsewhere_high, left = _least_and_most(
        seen, on_backend, backend, on_others, elsewhere, slack
    )
    elsewhere_low, backend_high, more = _least_and_most(
        seen, on_others, elsewhere, on_backend, backend, slack
    )
    # What no interface counted: over loopback, if two workers share a network namespace.
    ends = sum(min(one.ends, one.peers) for one in seen.interfaces)
    # With the least headers of all: a reset has no options, and a byte too much would end "100 %".
    least = (replace(one, tcp_header=min(one.tcp_header, _LEAST_TCP_HEADER)) for one in seen.interfaces)
    room = sum(max(0, _left(one, seen) + one.peers) for one in least)
    uncounted = max(0, on_backend + on_others + seen.unplaced - ends - room)
    if uncounted:
        worst = max(seen.interfaces, key=lambda one: _moved(one, seen), default=None)
        more.append(Unattributed(worst.name if worst else "unknown", uncounted, "uncounted"))
    return PeerPayload(
        max(0, backend_low - uncounted),
        backend_high + uncounted,
        max(0, elsewhere_low - uncounted),
        elsewhere_high + uncounted,
        (*left, *more),
    )


def _least_and_most(
    seen: Observation,
    counted_here: int,
    here: Sequence[Interface],
    counted_there: int,
    there: Sequence[Interface],
    slack: int,
) -> tuple[int, int, list[Unattributed]]:
    """Return the least payload with peers over ``here``, the most over ``there``, and what makes the difference."""
    room = {one.name: _room(one, seen) for one in there}
    moved = sum(_moved(one, seen) for one in here)
    remainder = sum(_remainder(one, seen) for one in there)
    remainder = remainder if remainder > slack else 0
    limits: dict[Reason, float] = {
        "sockets-lost": math.inf if seen.sockets_lost else 0,
        "counters-lost": math.inf if seen.datagrams is None else 0,
        "unplaced": seen.unplaced,
        "moved": moved,
        "datagrams": (seen.datagrams or 0) * _LARGEST_DATAGRAM,
        "remainder": remainder,
    }
    most = int(min(sum(room.values()), sum(limits.values())))
    gone = min(sum(room.values()), seen.unplaced + moved)
    reason = max(limits, key=lambda name: limits[name])
    unattributed = [
        Unattributed(name, min(most, count), reason) for name, count in room.items() if count and most
    ]
    ends = sum(min(one.ends, one.peers) for one in here)
    return max(0, counted_here + seen.unplaced - gone - ends), counted_there + most, unattributed


def _left(one: Interface, seen: Observation) -> int:
    """Return the most payload that the interface counted beyond its sockets'; negative if it counted too little."""
    others = min(one.packets, (seen.datagrams or 0) * _PACKETS_PER_DATAGRAM + seen.other_packets)
    if seen.datagrams is None:
        others = one.packets
    tcp = one.packets - others
    if one.segments is not None and not seen.sockets_lost:
        tcp = min(
            tcp, one.segments
        )  # what is neither may be a frame of a packet socket, without such headers
    headers = one.packets * one.link_header + tcp * one.tcp_header + others * _LEAST_HEADER
    return one.bytes - headers - one.peers - one.rest


def _moved(one: Interface, seen: Observation) -> int:
    """Return the payload with peers that the interface cannot have carried, because it counted too little."""
    return min(one.peers, max(0, -_left(one, seen) - one.ends))


def _room(one: Interface, seen: Observation) -> int:
    return max(0, _left(one, seen))


def _remainder(one: Interface, seen: Observation) -> int:
    """Return the bytes that are certainly neither TCP of known sockets nor its headers.

    What is neither TCP nor UDP counts as a whole: an ICMP message has a payload, too.
    """
    tcp = max(0, one.packets - seen.other_packets)
    if one.segments is not None:
        tcp = min(tcp, one.segments)
    return max(0, one.bytes - tcp * MOST_HEADER - one.peers - one.rest - one.repeated)
