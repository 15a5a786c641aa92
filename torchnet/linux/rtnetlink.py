"""Interfaces, addresses, counters and routes of this network namespace (rtnetlink, read-only).

Decoded by hand: each worker reads them at its start, which loading pyroute2 would make 0.04 s longer, and few of their
fields are needed. A test compares them with pyroute2's.

Sources:
    rtnetlink(7); include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour}.h.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torchnet.linux.netlink import HEADER, Netlink, attributes
from torchnet.network.interface_selection import Address, Interface

NEWLINK, DELLINK, GETLINK, NEWADDR, DELADDR, GETADDR, GETROUTE, GETNEIGHTBL = 16, 17, 18, 20, 21, 22, 26, 66
GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV6_ADDRESS = 1, 5, 9
_ETHERNET, _COUNTS_ETHERNET = 14, ("veth", "macvlan")  # drivers/net/veth.c and macvlan.c
_ARPHRD_ETHER = 1
_COUNTS = ("sent_bytes", "received_bytes", "sent_packets", "received_packets")
# struct rtmsg: family, prefix lengths and TOS, table, protocol, scope, type, flags (include/uapi/linux/rtnetlink.h)
_ROUTE = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_VIA = 1, 2, 4, 5, 7, 18
# Addresses for documentation (RFC 5737, RFC 3849): only a default route leads there.
_ELSEWHERE: dict[Literal[4, 6], str] = {4: "192.0.2.1", 6: "2001:db8:ffff:ffff::1"}
_NDTA_NAME, _NDTA_THRESH3 = 1, 4  # include/uapi/linux/neighbour.h
# struct ifinfomsg: family, type (ARPHRD_*), index, flags, change. struct ifaddrmsg: family, prefix length, flags,
# scope, index; flags above 0x80 are in an attribute.
_LINK, _ADDRESS = struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
# The beginning of struct rtnl_link_stats64: packets received and sent, bytes received and sent.
_STATS = struct.Struct("=QQQQ")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_STATS64, _IFLA_LINK_NETNSID, _IFLA_INFO_KIND, _IFLA_INFO_DATA = 18, 23, 37, 1, 2
_IFLA_IPVLAN_MODE, _IPVLAN_MODES = 1, ("l2", "l3", "l3s")  # enum ipvlan_mode
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_IFA_DADFAILED, _IFA_DEPRECATED, _IFA_TENTATIVE, _IFA_PERMANENT = 0x08, 0x20, 0x40, 0x80
_SCOPES: dict[int, Literal["global", "link", "host"]] = {0: "global", 253: "link", 254: "host"}


@dataclass(frozen=True)
class Counters:
    """An interface's 64-bit counters (IFLA_STATS64) since it was created.

    ``lower`` is the interface of this namespace that counts these bytes, too (the card below a VLAN), and ``master``
    the bond or bridge that this interface is a port of. ``link_header`` is the least length of the link's headers in
    the byte counts: a VLAN does not count it where it receives. ``pair``: it is one end of a veth pair.
    """

    sent_bytes: int
    received_bytes: int
    sent_packets: int = 0
    received_packets: int = 0
    lower: str = ""
    master: str = ""
    link_header: int = 0
    pair: bool = False

    def since(self, base: Counters) -> Counters:
        """Return the counts after ``base``; if the interface was created again since then, all of them."""
        began_again = self.sent_bytes < base.sent_bytes or self.received_bytes < base.received_bytes
        return self if began_again else self.without([base])

    def without(self, others: Iterable[Counters]) -> Counters:
        """Return the counts that are not in others; 0 if those have more."""
        left_out = tuple(others)
        counts = {
            name: max(0, getattr(self, name) - sum(getattr(one, name) for one in left_out))
            for name in _COUNTS
        }
        return replace(self, **counts)


@dataclass(frozen=True)
class Route:
    """The interface and source address that the kernel would use for a packet; ``direct``: not through a gateway."""

    interface: str
    source: str
    direct: bool = True


@dataclass(frozen=True)
class Link:
    """An interface as the kernel describes it.

    Attributes:
        hardware: the ARPHRD type.
        kind: of a virtual interface, such as veth; "" for a card's.
        mode: of an ipvlan; "" for any other.
        below: index of the interface that it is on; 0 for none.
        master: index of the bond or bridge that it is a port of; 0 for none.
        foreign: whether ``below`` is an index of another namespace.
        stats: packets received and sent, bytes received and sent, since it was created; None without counters.
    """

    name: str
    index: int
    hardware: int
    flags: int = 0
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    below: int = 0
    master: int = 0
    foreign: bool = False
    stats: tuple[int, int, int, int] | None = None
    mode: str = ""

    @classmethod
    def decode(cls, message: bytes) -> Link:
        """Decode a RTM_NEWLINK message."""
        _, hardware, index, flags, _ = _LINK.unpack_from(message, HEADER.size)
        found = attributes(message, HEADER.size + _LINK.size)
        stats = found.get(_IFLA_STATS64)
        about = attributes(found.get(_IFLA_LINKINFO, b""), 0)
        kind = _text(about.get(_IFLA_INFO_KIND, b""))
        return cls(
            _text(found.get(_IFLA_IFNAME, b"")),
            index,
            hardware,
            flags,
            kind,
            found.get(_IFLA_ADDRESS, b"").hex(":"),
            _number(found.get(_IFLA_MTU, b"")),
            _number(found.get(_IFLA_LINK, b"")),
            _number(found.get(_IFLA_MASTER, b"")),
            _IFLA_LINK_NETNSID in found,
            _STATS.unpack_from(stats) if stats else None,
            _ipvlan_mode(about) if kind == "ipvlan" else "",
        )


def links(netlink: Netlink | None = None) -> list[Link]:
    """Return all interfaces of this network namespace."""
    with _Borrowed(netlink) as nl:
        return [Link.decode(message) for _, message in nl.dump(_request(GETLINK, _LINK.size))]


def link_types(netlink: Netlink | None = None) -> dict[str, tuple[str, str]]:
    """Return each interface's kind and mode (see :class:`Link`), by name."""
    return {link.name: (link.kind, link.mode) for link in links(netlink)}


def interfaces(netlink: Netlink | None = None) -> dict[str, Interface]:
    """Return all interfaces with their addresses, by name."""
    found: dict[int, list[Address]] = {}
    with _Borrowed(netlink) as nl:
        present = links(nl)
        for _, message in nl.dump(_request(GETADDR, _ADDRESS.size)):
            index, address = _address(message)
            found.setdefault(index, []).append(address)
    return {
        link.name: Interface(
            name=link.name,
            index=link.index,
            mac=link.mac,
            mtu=link.mtu,
            up=bool(link.flags & _IFF_UP),
            carrier=bool(link.flags & _IFF_LOWER_UP),
            addresses=tuple(found.get(link.index, ())),
        )
        for link in present
    }


def counters(netlink: Netlink | None = None) -> dict[str, Counters]:
    """Return the bytes sent and received by each interface of this network namespace.

    Not from /sys/class/net, which shows the namespace that it was mounted in.
    """
    present = links(netlink)
    names = {link.index: link.name for link in present}
    result = {}
    for link in present:
        if link.stats is not None:
            received_packets, sent_packets, received_bytes, sent_bytes = link.stats
            result[link.name] = Counters(
                sent_bytes,
                received_bytes,
                sent_packets,
                received_packets,
                _lower(link, names),
                names.get(link.master, ""),
                _ETHERNET if counts_ethernet(link) else 0,
                link.kind == "veth",
            )
    return result


def above(found: Mapping[str, Counters], names: Iterable[str]) -> set[str]:
    """Return these interfaces, and those whose packets they carry (VLAN, macvlan, VXLAN)."""
    result = set(names)
    while more := {name for name, one in found.items() if one.lower in result} - result:
        result |= more
    return result


def vanished(
    base: Mapping[str, Counters], found: Mapping[str, Counters], addressed: Collection[str]
) -> tuple[str, ...]:
    """Return the interfaces that were there before.

    Without those that come and go with containers: ports of bridges, and ends of veth pairs that are not
    ``addressed``, so that only the container's traffic can have passed them.
    """
    return tuple(
        name
        for name, one in base.items()
        if name not in found and not one.master and (not one.pair or name in addressed)
    )


def _lower(link: Link, names: Mapping[int, str]) -> str:
    """Return the interface below. It may be in another namespace, and has its index there (a pod's macvlan)."""
    if link.foreign or link.kind == "veth" or link.below == link.index:
        return ""
    return names.get(link.below, "")


def counts_ethernet(link: Link) -> bool:
    """Return whether the byte counts have each packet's Ethernet header.

    Cards have to count "the length of Ethernet frames excluding the FCS" (Documentation/networking/statistics.rst, on
    rx_bytes). An Ethernet interface without a kind is a card's.
    """
    return link.kind in _COUNTS_ETHERNET or (not link.kind and link.hardware == _ARPHRD_ETHER)


def route(
    address: str, netlink: Netlink | None = None, *, names: dict[int, str] | None = None, source: str = ""
) -> Route:
    """Return the route to ``address`` (an IPv4 or IPv6 literal), as ``ip route get`` shows it.

    Args:
        source: the address that the packets come from, for rules that depend on it.

    Raises:
        OSError: no route (ENETUNREACH).
    """
    raw = socket.inet_pton(family := family_of(address), address)
    own = socket.inet_pton(family, source) if source else b""
    body = _ROUTE.pack(family, 8 * len(raw), 8 * len(own), 0, 0, 0, 0, 0, 0)
    body += struct.pack("=HH", 4 + len(raw), _RTA_DST) + raw
    body += struct.pack("=HH", 4 + len(own), _RTA_SRC) + own if own else b""
    with _Borrowed(netlink) as nl:
        _, message = nl.get(HEADER.pack(HEADER.size + len(body), GETROUTE, 0, 0, 0) + body)
    found = attributes(message, HEADER.size + _ROUTE.size)
    index = _number(found.get(_RTA_OIF, b""))
    if names is None:
        names = dict(socket.if_nameindex())
    source = socket.inet_ntop(family, found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else ""
    return Route(names.get(index, f"interface {index}"), source, not {_RTA_GATEWAY, _RTA_VIA} & found.keys())


def default_interface(family: Literal[4, 6] = 4) -> str:
    """Return the interface of the default route; "" without one."""
    try:
        return route(_ELSEWHERE[family]).interface
    except OSError:
        return ""


def neighbour_limit(family: int) -> int:
    """Return how many neighbours of a family (4 or 6) the kernel keeps at most.

    This is the sysctl gc_thresh3, one limit for all network namespaces of the host. Not from /proc/sys, where only the
    first namespace has it.
    """
    name = b"arp_cache\0" if family == 4 else b"ndisc_cache\0"
    body = struct.pack("=BBH", socket.AF_INET if family == 4 else socket.AF_INET6, 0, 0)
    with Netlink() as nl:
        for _, message in nl.dump(HEADER.pack(HEADER.size + len(body), GETNEIGHTBL, 0, 0, 0) + body):
            found = attributes(message, HEADER.size + len(body))
            if found.get(_NDTA_NAME) == name and _NDTA_THRESH3 in found:
                return _number(found[_NDTA_THRESH3])
    raise OSError(f"the kernel has no neighbour table of IPv{family}")


def changes(netlink: Netlink) -> bool:
    """Return whether a link or address has changed since the last call; needs a :func:`watcher` socket."""
    return any(kind in (NEWLINK, DELLINK, NEWADDR, DELADDR) for kind, _ in netlink.events())


def watcher() -> Netlink:
    """Open a socket that is readable after a link or address change (a carrier's within milliseconds)."""
    return Netlink(groups=(GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV6_ADDRESS))


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _address(message: bytes) -> tuple[int, Address]:
    """Decode a RTM_NEWADDR message: the interface's index, and the address."""
    code, prefix, flags, scope, index = _ADDRESS.unpack_from(message, HEADER.size)
    found = attributes(message, HEADER.size + _ADDRESS.size)
    family: Literal[4, 6] = 6 if code == socket.AF_INET6 else 4
    # IFA_ADDRESS is the other end's on a point-to-point link.
    raw = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return index, Address(
        ip=socket.inet_ntop(code, raw),
        prefix=prefix,
        family=family,
        scope=_SCOPES.get(scope, "link"),
        tentative=bool(flags & _IFA_TENTATIVE),
        dadfailed=bool(flags & _IFA_DADFAILED),
        deprecated=bool(flags & _IFA_DEPRECATED),
        permanent=bool(flags & _IFA_PERMANENT),
    )


def _ipvlan_mode(about: Mapping[int, bytes]) -> str:
    mode = attributes(about.get(_IFLA_INFO_DATA, b""), 0).get(_IFLA_IPVLAN_MODE, b"\xff")
    return _IPVLAN_MODES[_number(mode)] if _number(mode) < len(_IPVLAN_MODES) else ""


def _request(kind: int, size: int) -> bytes:
    """Return a request for all objects of a kind: a header and an empty structure."""
    return HEADER.pack(HEADER.size + size, kind, 0, 0, 0) + bytes(size)


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="surrogateescape")


class _Borrowed:
    """The caller's socket, left open; or a new one, closed at the end."""

    def __init__(self, netlink: Netlink | None) -> None:
        self._own = Netlink() if netlink is None else None
        self._netlink = netlink or self._own

    def __enter__(self) -> Netlink:
        assert self._netlink is not None
        return self._netlink

    def __exit__(self, *exc: object) -> None:
        if self._own is not None:
            self._own.close()


assert struct.calcsize("=IHHII") == 16
