"""Which address of which interface a rail uses: what the cluster says and what the kernel has must agree.

Every refusal names the node, the interface, what was seen and a way out. Nothing here falls back to another
interface: a job that silently ran over eth0 is what torchnet is there to prevent.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal, NoReturn

from torchnet.errors import NetworkError
from torchnet.network.status import StatusEntry
from torchnet.network.text import listed, printable

Family = Literal["auto", "ipv4", "ipv6"]


@dataclass(frozen=True)
class Address:
    """One address of an interface, as rtnetlink gives it (flags: linux/if_addr.h, scope: linux/rtnetlink.h).

    ``permanent`` is IFA_F_PERMANENT: no lifetime, so neither from a router advertisement nor from DHCP.
    """

    ip: str
    prefix: int
    family: Literal[4, 6]
    scope: Literal["global", "link", "host"] = "global"
    tentative: bool = False
    dadfailed: bool = False
    deprecated: bool = False
    permanent: bool = True


@dataclass(frozen=True)
class Interface:
    """An interface of this network namespace; ``addresses`` in the kernel's order, the order Gloo searches."""

    name: str
    index: int
    mac: str
    mtu: int
    up: bool
    carrier: bool
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True)
class Rail:
    """One backend network of a worker: ``family`` 4 or 6, ``mtu`` in bytes, ``notes`` sentences for the user."""

    index: int
    attachment: str
    interface: str
    address: str
    family: int
    prefix: int
    mtu: int
    notes: tuple[str, ...] = ()


class TentativeError(NetworkError):
    """The address is still under duplicate address detection: ask again (about 2 s), then refuse with this."""

    def __init__(self, text: str, *, fix: str, interface: str, address: str) -> None:
        super().__init__(text, fix=fix)
        self.interface = interface
        self.address = address


def select_rail(
    node: str,
    rail_index: int,
    attachment: str,
    entry: StatusEntry | None,
    interface: Interface | None,
    family: Family,
) -> Rail:
    """The rail that ``attachment`` gives this node.

    ``entry`` is what the address source says (no ``ips``: it names an interface only, as ``host:`` does),
    ``interface`` what the kernel has under ``entry.interface``. Unique local addresses (fc00::/7) are global.

    Raises:
        TentativeError: the address is under duplicate address detection; the caller polls.
        NetworkError: anything else that keeps the rail from being usable, or ambiguous.
    """
    where = _Where(node, attachment, entry.interface if entry else None)
    if entry is None:
        where.refuse(
            "network-status has no entry for it",
            "check that the pod asks for this attachment and that its NetworkAttachmentDefinition has a cniVersion",
        )
    if interface is None:
        where.refuse(
            "the kernel has no such interface",
            f"compare `ip link` in the pod with its network-status; recreate the pod if {where.interface} was removed",
        )
    if entry.interface is not None and entry.interface != interface.name:
        where.refuse(
            f"network-status says interface {printable(entry.interface)}, the kernel says {printable(interface.name)}",
            "ask for a fixed name: set `interface` in the pod's networks annotation",
        )
    where = _Where(node, attachment, interface.name)
    if not interface.up:
        where.refuse("the interface is down", f"ip link set {where.interface} up")
    if not interface.carrier:
        where.refuse("the interface has no carrier", "check the parent card and its cable or switch port on this node")

    usable = [address for address in interface.addresses if _is_global(address)]
    wanted = _of_family(where, interface, usable, family)
    _check_detection(where, wanted)
    _check_agreement(where, entry, interface, usable)
    chosen = _one(where, entry, wanted)
    return Rail(
        index=rail_index,
        attachment=attachment,
        interface=interface.name,
        address=_canonical(chosen),
        family=chosen.family,
        prefix=chosen.prefix,
        mtu=interface.mtu,
        notes=_notes(where, entry, interface, usable, chosen, family),
    )


@dataclass(frozen=True)
class _Where:
    node: str
    attachment: str
    name: str | None

    @property
    def interface(self) -> str:
        return printable(self.name, 40) if self.name else "the interface"

    def __str__(self) -> str:
        return f"{printable(self.node, 80)}: {self.interface} ({printable(self.attachment, 120)})"

    def refuse(self, text: str, fix: str) -> NoReturn:
        raise NetworkError(f"{self}: {text}", fix=fix)


def _of_family(where: _Where, interface: Interface, usable: list[Address], family: Family) -> list[Address]:
    four = [address for address in usable if address.family == 4]
    six = [address for address in usable if address.family == 6]
    if not usable:
        if not interface.addresses:
            where.refuse("it has no address at all", "check the attachment's ipam, and whether something removed the address")
        where.refuse(
            f"it has only link-local addresses ({_names(interface.addresses)}), which no other interface can be told from",
            "give the attachment an ipam with a global or unique local range (fc00::/7), and check whether the address was removed",
        )
    if family == "ipv4":
        if not four:
            where.refuse(f"--family ipv4, but it has only {_names(six)}", "use --family auto, or give it an IPv4 address")
        return four
    if family == "ipv6" and not six:
        where.refuse(f"--family ipv6, but it has only {_names(four)}", "use --family auto, or give it an IPv6 address")
    if four and six:
        # Not chosen with a note: Gloo would then carry the job over paths that nobody checked.
        where.refuse(
            f"it has IPv4 ({_names(four)}) beside IPv6 ({_names(six)}); Gloo listens on the IPv4 address "
            "whatever is asked for, so choosing IPv6 here would check one path and use another",
            "use --family ipv4, or take the IPv4 address out of the attachment's ipam",
        )
    return six or four


def _check_detection(where: _Where, wanted: list[Address]) -> None:
    for address in wanted:
        if address.dadfailed:
            where.refuse(
                f"duplicate address detection failed for {address.ip}: another machine on this segment has it",
                "find it with `ip -6 neigh show` on a neighbour, then recreate the pod, or use an ipam that "
                "keeps one pool for all nodes",
            )
    for address in wanted:
        if address.tentative:
            raise TentativeError(
                f"{where}: {address.ip} is still tentative (duplicate address detection has not ended)",
                fix="it takes about 2 s on a working segment; look at `ip -6 address show "
                f"{where.interface}`, and at the carrier of the parent card",
                interface=where.interface,
                address=address.ip,
            )


def _check_agreement(where: _Where, entry: StatusEntry, interface: Interface, usable: list[Address]) -> None:
    known = {_canonical(address) for address in interface.addresses}
    gone = [ip for ip in entry.ips if ip not in known]
    if gone:
        where.refuse(
            f"network-status says {listed(entry.ips)}, the kernel has {_names(interface.addresses)}: "
            f"{listed(gone)} is missing",
            "something removed or replaced the address, or the status is stale: recreate the pod",
        )


def _one(where: _Where, entry: StatusEntry, wanted: list[Address]) -> Address:
    first = wanted[0]
    named = [address for address in wanted if _canonical(address) in entry.ips]
    if len(wanted) == 1:
        if entry.ips and not named:
            where.refuse(
                f"network-status says {listed(entry.ips)}, but the address to use would be {first.ip}",
                "use the --family of the attachment's own address, or recreate the pod",
            )
        return first
    permanent = [address for address in wanted if address.permanent]
    # Gloo takes the first that getifaddrs lists. So naming the address is not enough: it must come first, too.
    if len(named) == 1 and permanent == named and first == named[0]:
        return first
    ours = f"; network-status names {listed(entry.ips)}" if entry.ips else ""
    where.refuse(
        f"it has several global addresses ({_names(wanted)}), of which Gloo takes the first, {first.ip}{ours}",
        "leave one: set accept_ra=0 through the tuning plugin against router advertisements, or remove the others",
    )


def _notes(
    where: _Where,
    entry: StatusEntry,
    interface: Interface,
    usable: list[Address],
    chosen: Address,
    family: Family,
) -> tuple[str, ...]:
    notes = []
    if chosen.family == 4 and family == "auto":
        notes.append(f"{where}: no global IPv6 address, so IPv4 {chosen.ip} is used")
    others = [address for address in usable if address != chosen]
    if others:
        notes.append(f"{where}: {_names(others)} is there too and is not used; {chosen.ip} is")
    if chosen.deprecated:
        notes.append(f"{where}: {chosen.ip} is deprecated (its preferred lifetime has ended)")
    if entry.mac and entry.mac.lower() != interface.mac.lower():
        notes.append(f"{where}: network-status says MAC {printable(entry.mac, 40)}, the kernel {interface.mac}")
    if entry.mtu and entry.mtu != interface.mtu:
        notes.append(f"{where}: network-status says MTU {entry.mtu}, the kernel {interface.mtu}; the kernel's counts")
    return tuple(notes)


def _is_global(address: Address) -> bool:
    ip = ipaddress.ip_address(address.ip)
    return address.scope == "global" and not ip.is_link_local and not ip.is_loopback and not ip.is_multicast


def _canonical(address: Address) -> str:
    return str(ipaddress.ip_address(address.ip))


def _names(addresses: tuple[Address, ...] | list[Address]) -> str:
    return listed([f"{address.ip}/{address.prefix}" for address in addresses], 8) or "none"
