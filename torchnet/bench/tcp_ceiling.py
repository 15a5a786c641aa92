"""The share of a line's rate that TCP can carry, from the bytes around each packet's payload.

A TCP header has 20 bytes, or 32 with timestamps (RFC 7323), which Linux uses by default. An IPv6 header has 40 bytes
(RFC 8200), an IPv4 header 20 (RFC 791). Around each packet Ethernet has 14 bytes of header, 4 of checksum, 8 of
preamble and 12 of interframe gap (IEEE 802.3). Linux's token bucket filter, which shapes the local networks, counts the
header only (tc-tbf(8)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_TCP, _STAMPS, _IP = 20, 12, {4: 20, 6: 40}
_HEADER, _AROUND = 14, 14 + 4 + 8 + 12

Known = Literal["shaped", "interface", "told"]


@dataclass(frozen=True)
class TcpCeiling:
    """What TCP can carry on a line.

    ``rate`` is in bits per second. ``known`` is its source: the local network's --rate, the interface's own report, or
    --line. ``timestamps`` are TCP's, which two nodes use unless one of them has them off.
    """

    rate: float
    mtu: int
    family: int
    known: Known
    timestamps: bool = True

    @property
    def efficiency(self) -> float:
        """Return the largest share of the rate that can be payload."""
        packet = self.mtu + (_HEADER if self.known == "shaped" else _AROUND)
        return payload(self.mtu, self.family, timestamps=self.timestamps) / packet

    @property
    def ceiling(self) -> float:
        """Return the payload in bytes per second and direction."""
        return self.rate / 8 * self.efficiency


def payload(mtu: int, family: int, *, timestamps: bool = True) -> int:
    """Return the bytes of a full packet that are application data; ``family`` is 4 or 6."""
    return mtu - _TCP - (_STAMPS if timestamps else 0) - _IP[family]


def lines_used(backend: str, interfaces: str) -> int:
    """Return how many lines carry one collective.

    NCCL spreads a collective over its interfaces (NCCL_SOCKET_IFNAME), Gloo takes them in turn. The number is 1 if the
    variable excludes interfaces (``^``) instead of naming them.
    """
    if backend != "nccl" or interfaces.startswith("^"):
        return 1
    return max(1, len([name for name in interfaces.lstrip("=").split(",") if name]))


def line_factor(collective: str, ranks: int, nodes: int) -> float:
    """Return how many times busbw a node's line carries in each direction, if consecutive ranks share nodes.

    It is 1 for rings, by which nccl-tests defines busbw: a ring leaves and enters each node once, however many ranks
    the node has. It is 1 as well for the pairs of a send_recv, and for broadcast and reduce, which send the whole
    message. In an all_to_all each rank sends a part to each rank of the other nodes, which no algorithm can avoid, and
    all of these parts share one line.
    """
    if collective != "all_to_all" or nodes < 2 or ranks <= nodes:
        return 1.0
    each = ranks / nodes
    return each * (ranks - each) / (ranks - 1)
