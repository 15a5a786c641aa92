"""This network namespace's own counters of protocols: how much can have been sent that no TCP socket accounts for.

Source:
    Documentation/networking/snmp_counter.rst; net/ipv4/proc.c, net/ipv6/proc.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

ROOT = "/proc/thread-self/net"  # of the thread's namespace, whichever /proc was mounted in
_UDP = ("Udp", "UdpLite", "Udp6", "UdpLite6")
_UNREAD = ("InErrors", "NoPorts")


@dataclass(frozen=True)
class ProtocolCounters:
    """Counts since the namespace was created.

    Attributes:
        datagrams_sent: of UDP.
        datagrams_received: of UDP, as far as sockets read them.
        other_packets_sent: IP packets other than TCP and whole UDP datagrams.
        other_packets_received: the same.
        mptcp_connections: their subflows may close without a report of their counts.
    """

    datagrams_sent: int
    datagrams_received: int
    other_packets_sent: int
    other_packets_received: int
    mptcp_connections: int

    def plus(self, more: ProtocolCounters) -> ProtocolCounters:
        return ProtocolCounters(
            *(one + other for one, other in zip(astuple(self), astuple(more), strict=True))
        )

    def since(self, base: ProtocolCounters) -> ProtocolCounters:
        return ProtocolCounters(*(now - then for now, then in zip(astuple(self), astuple(base), strict=True)))


def read(root: str = ROOT) -> ProtocolCounters | None:
    """Return the counters, or None if they cannot be read."""
    try:
        with open(f"{root}/snmp") as snmp, open(f"{root}/netstat") as netstat:
            counts = _pairs(snmp.read()) | _pairs(netstat.read())
        try:
            with open(f"{root}/snmp6") as snmp6:
                counts |= _lines(snmp6.read())
        except FileNotFoundError:
            pass  # a kernel without IPv6
        return _parsed(counts)
    except (OSError, ValueError, KeyError):
        return None


def _parsed(counts: Mapping[str, int]) -> ProtocolCounters:
    counts["UdpOutDatagrams"]  # KeyError: not the counters of a kernel

    def total(*names: str) -> int:
        return sum(counts.get(name, 0) for name in names)

    return ProtocolCounters(
        total(*(f"{name}OutDatagrams" for name in _UDP)),
        total(*(f"{name}InDatagrams" for name in _UDP)),
        total("IpFragCreates", "Ip6FragCreates", "IcmpOutMsgs", "Icmp6OutMsgs"),
        total("IpReasmReqds", "Ip6ReasmReqds", "IcmpInMsgs", "Icmp6InMsgs")
        + total(*(f"{name}{what}" for name in _UDP for what in _UNREAD)),
        total("MPTcpExtMPCapableSYNTX", "MPTcpExtMPCapableSYNRX"),
    )


def _pairs(text: str) -> dict[str, int]:
    """Parse lines of names, each followed by a line of values."""
    lines = text.splitlines()
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        prefix, _, rest = names.partition(":")
        found |= {
            prefix + name: int(value)
            for name, value in zip(rest.split(), values.partition(":")[2].split(), strict=True)
        }
    return found


def _lines(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}
