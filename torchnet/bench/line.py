"""What of a line's rate TCP can carry: the bytes around each packet's payload.

With timestamps (RFC 7323), which Linux has on by default, a TCP header has 32 bytes; an IPv6 header has 40 (RFC 8200),
an IPv4 header 20 (RFC 791). Around a packet Ethernet has 14 bytes of header, 4 of check sum, 8 of preamble and 12 of
gap (IEEE 802.3). Linux' token bucket, which shapes the local networks, counts the header alone (tc-tbf(8)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_TCP, _IP = 32, {4: 20, 6: 40}
_HEADER, _AROUND = 14, 14 + 4 + 8 + 12

Known = Literal["shaped", "interface", "told"]


@dataclass(frozen=True)
class Line:
    """``rate`` is bits per second; ``known`` says where it is from: the local network's --rate, what the interface
    tells, or --line."""

    rate: float
    mtu: int
    family: int
    known: Known

    @property
    def efficiency(self) -> float:
        """The most of the rate that can be payload."""
        return payload(self.mtu, self.family) / (self.mtu + (_HEADER if self.known == "shaped" else _AROUND))

    @property
    def ceiling(self) -> float:
        """Bytes of payload per second and direction."""
        return self.rate / 8 * self.efficiency


def payload(mtu: int, family: int) -> int:
    """Bytes of a full packet that are the program's own; ``family`` is 4 or 6."""
    return mtu - _TCP - _IP[family]
