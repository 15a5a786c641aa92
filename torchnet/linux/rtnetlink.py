"""Interfaces, addresses, counters and routes of this network namespace (rtnetlink, read-only)."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torchnet.linux.netlink import HEADER, Netlink, attributes, encode
from torchnet.network.interface_selection import Address, Interface

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # isort: skip
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # isort: skip

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
# include/uapi/linux/if_link.h
_IFINFOMSG_SIZE = 16
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_IPVLAN_MODE = 3, 18, 1, 2, 1
_IPVLAN_MODES = ("l2", "l3", "l3s")  # enum ipvlan_mode
_NDTA_NAME, _NDTA_THRESH3 = 1, 4  # include/uapi/linux/neighbour.h
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


def interfaces(netlink: Netlink | None = None) -> dict[str, Interface]:
    """Return all interfaces with their addresses, by name."""
    with _Borrowed(netlink) as nl:
        links = [_decoded(ifinfmsg, message) for _, message in nl.dump(encode(ifinfmsg(), GETLINK, 0))]
        found: dict[int, list[Address]] = {}
        for _, message in nl.dump(encode(ifaddrmsg(), GETADDR, 0)):
            address = _decoded(ifaddrmsg, message)
            found.setdefault(address["index"], []).append(_address(address))
    result = {}
    for link in links:
        name = link.get_attr("IFLA_IFNAME")
        result[name] = Interface(
            name=name,
            index=link["index"],
            mac=link.get_attr("IFLA_ADDRESS") or "",
            mtu=link.get_attr("IFLA_MTU") or 0,
            up=bool(link["flags"] & _IFF_UP),
            carrier=bool(link["flags"] & _IFF_LOWER_UP),
            addresses=tuple(found.get(link["index"], ())),
        )
    return result


def counters(netlink: Netlink | None = None) -> dict[str, Counters]:
    """Return the bytes sent and received by each interface of this network namespace.

    Not from /sys/class/net, which shows the namespace that it was mounted in.
    """
    with _Borrowed(netlink) as nl:
        links = [_decoded(ifinfmsg, message) for _, message in nl.dump(encode(ifinfmsg(), GETLINK, 0))]
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
    result = {}
    for link in links:
        stats = link.get_attr("IFLA_STATS64")
        if stats:
            result[link.get_attr("IFLA_IFNAME")] = Counters(
                stats["tx_bytes"],
                stats["rx_bytes"],
                stats["tx_packets"],
                stats["rx_packets"],
                # The link below may be in another namespace, and has its index there (a pod's macvlan).
                _lower(link, names),
                names.get(link.get_attr("IFLA_MASTER"), ""),
                _ETHERNET if counts_ethernet(link) else 0,
                _kind(link) == "veth",
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


def _lower(link: Any, names: Mapping[int, str]) -> str:
    if link.get_attr("IFLA_LINK_NETNSID") is not None or _kind(link) == "veth":
        return ""
    index = link.get_attr("IFLA_LINK")
    return names.get(index, "") if index != link["index"] else ""


def counts_ethernet(link: Any) -> bool:
    """Return whether the byte counts have each packet's Ethernet header.

    Cards have to count "the length of Ethernet frames excluding the FCS" (Documentation/networking/statistics.rst, on
    rx_bytes). An Ethernet interface without a kind is a card's.
    """
    kind = _kind(link)
    return kind in _COUNTS_ETHERNET or (kind is None and link["ifi_type"] == _ARPHRD_ETHER)


def _kind(link: Any) -> str | None:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info else None


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
    # Not with pyroute2, whose messages take 0.3 ms each: a worker looks up thousands of peers.
    own = socket.inet_pton(family, source) if source else b""
    body = _ROUTE.pack(family, 8 * len(raw), 8 * len(own), 0, 0, 0, 0, 0, 0)
    body += struct.pack("=HH", 4 + len(raw), _RTA_DST) + raw
    body += struct.pack("=HH", 4 + len(own), _RTA_SRC) + own if own else b""
    with _Borrowed(netlink) as nl:
        _, message = nl.get(HEADER.pack(HEADER.size + len(body), GETROUTE, 0, 0, 0) + body)
    found = attributes(message, HEADER.size + _ROUTE.size)
    index = int.from_bytes(found.get(_RTA_OIF, b""), sys.byteorder)
    if names is None:
        names = dict(socket.if_nameindex())
    source = socket.inet_ntop(family, found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else ""
    return Route(names.get(index, f"interface {index}"), source, not {_RTA_GATEWAY, _RTA_VIA} & found.keys())


def link_types(netlink: Netlink | None = None) -> dict[str, tuple[str, str]]:
    """Return each interface's kind, as ``ip -d link`` shows it ("" for a card), and an ipvlan's mode, by name."""
    found = {}
    with _Borrowed(netlink) as nl:
        # Not with pyroute2, which names two of the three modes.
        for _, message in nl.dump(encode(ifinfmsg(), GETLINK, 0)):
            link = attributes(message, HEADER.size + _IFINFOMSG_SIZE)
            about = attributes(link.get(_IFLA_LINKINFO, b""), 0)
            kind = _text(about.get(_IFLA_INFO_KIND, b""))
            data = attributes(about.get(_IFLA_INFO_DATA, b""), 0) if kind == "ipvlan" else {}
            number = int.from_bytes(data.get(_IFLA_IPVLAN_MODE, b"\xff"), sys.byteorder)
            mode = _IPVLAN_MODES[number] if number < len(_IPVLAN_MODES) else ""
            found[_text(link.get(_IFLA_IFNAME, b""))] = kind, mode
    return found


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


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
                return int.from_bytes(found[_NDTA_THRESH3], sys.byteorder)
    raise OSError(f"the kernel has no neighbour table of IPv{family}")


def changes(netlink: Netlink) -> bool:
    """Return whether a link or address has changed since the last call; needs a :func:`watcher` socket."""
    return any(kind in (NEWLINK, DELLINK, NEWADDR, DELADDR) for kind, _ in netlink.events())


def watcher() -> Netlink:
    """Open a socket that is readable after a link or address change (a carrier's within milliseconds)."""
    return Netlink(groups=(GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV6_ADDRESS))


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _address(message: Any) -> Address:
    family: Literal[4, 6] = 6 if message["family"] == socket.AF_INET6 else 4
    flags = message.get_attr("IFA_FLAGS")
    if flags is None:
        flags = message["flags"]
    return Address(
        ip=message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"),
        prefix=message["prefixlen"],
        family=family,
        scope=_SCOPES.get(message["scope"], "link"),
        tentative=bool(flags & _IFA_TENTATIVE),
        dadfailed=bool(flags & _IFA_DADFAILED),
        deprecated=bool(flags & _IFA_DEPRECATED),
        permanent=bool(flags & _IFA_PERMANENT),
    )


def _decoded(kind: Any, message: bytes) -> Any:
    decoded = kind(message)
    decoded.decode()
    return decoded


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
