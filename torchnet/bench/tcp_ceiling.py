"""What of a line's rate TCP can carry: the bytes around each packet's payload.

A TCP header has 20 bytes, and 32 with timestamps (RFC 7323), which Linux has on by default; an IPv6 header has 40 (RFC
8200), an IPv4 header 20 (RFC 791). Around a packet Ethernet has 14 bytes of header, 4 of check sum, 8 of preamble and
12 of gap (IEEE 802.3). Linux' token bucket, which shapes the local networks, counts the header alone (tc-tbf(8)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_TCP, _STAMPS, _IP = 20, 12, {4: 20, 6: 40}
_HEADER, _AROUND = 14, 14 + 4 + 8 + 12

Known = Literal["shaped", "interface", "told"]


@dataclass(frozen=True)
class TcpCeiling:
    """``rate`` is bits per second; ``known`` says where it is from: the local network's --rate, what the interface
    tells, or --line. ``timestamps``: TCP's, which two nodes use unless one has them off."""

    rate: float
    mtu: int
    family: int
    known: Known
    timestamps: bool = True

    @property
    def efficiency(self) -> float:
        """The most of the rate that can be payload."""
        packet = self.mtu + (_HEADER if self.known == "shaped" else _AROUND)
        return payload(self.mtu, self.family, timestamps=self.timestamps) / packet

    @property
    def ceiling(self) -> float:
        """Bytes of payload per second and direction."""
        return self.rate / 8 * self.efficiency


def payload(mtu: int, family: int, *, timestamps: bool = True) -> int:
    """Bytes of a full packet that are the program's own; ``family`` is 4 or 6."""
    return mtu - _TCP - (_STAMPS if timestamps else 0) - _IP[family]


def lines_used(backend: str, interfaces: str) -> int:
    """How many lines carry one collective: NCCL spreads it over its interfaces (NCCL_SOCKET_IFNAME), Gloo takes them in
    turn. One where they are told by what they are not."""
    if backend != "nccl" or interfaces.startswith("^"):
        return 1
    return max(1, len([name for name in interfaces.lstrip("=").split(",") if name]))


def carried(collective: str, ranks: int, nodes: int) -> float:
    """How many times busbw a node's line carries each way, where neighbours in rank share nodes.

    Once for rings, by which nccl-tests counts busbw: each leaves a node, and enters it, once, however many ranks it
    has; so do the pairs of a send_recv, and a broadcast or a reduce sends the whole message. Of an all_to_all each rank
    sends a part to each rank of the other nodes, which no way of sending can spare, all of them over the same line.
    """
    if collective != "all_to_all" or nodes < 2 or ranks <= nodes:
        return 1.0
    each = ranks / nodes
    return each * (ranks - each) / (ranks - 1)
