"""Choose a rail's interface and address; the address source and the kernel must agree on them.

Every error names the node, the interface, what was found and a remedy. Nothing here falls back to another
interface: torchnet exists to prevent jobs that silently run over eth0.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from torchnet.errors import NetworkError
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.network_status import StatusEntry, canonical
from torchnet.text import listed, printable

Family = Literal["auto", "ipv4", "ipv6"]


@dataclass(frozen=True)
class Address:
    """An address of an interface, as rtnetlink reports it (flags: linux/if_addr.h, scope: linux/rtnetlink.h).

    ``permanent`` is IFA_F_PERMANENT: no lifetime, so not from a router advertisement or DHCP.
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
    """An interface of this network namespace; ``addresses`` are in the kernel's order, which Gloo follows."""

    name: str
    index: int
    mac: str
    mtu: int
    up: bool
    carrier: bool
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True)
class Rail:
    """A worker's backend network.

    ``attachment`` is None for an interface that no attachment added, ``family`` is 4 or 6, ``mtu`` in bytes, ``notes``
    are lines for the user.
    """

    index: int
    attachment: NetworkAttachment | None
    interface: str
    address: str
    family: int
    prefix: int
    mtu: int
    notes: tuple[str, ...] = ()


class TakenError(NetworkError):
    """Duplicate address detection failed. The kernel will not use the address here; a replacement pod may work."""


class TentativeError(NetworkError):
    """Duplicate address detection is running (about 2 s): retry, and report this if it does not end."""

    def __init__(self, text: str, *, fix: str, interface: str, address: str) -> None:
        super().__init__(text, fix=fix)
        self.interface = interface
        self.address = address


def select_rail(
    node: str,
    rail_index: int,
    label: str,
    entry: StatusEntry | None,
    interface: Interface | None,
    family: Family,
) -> Rail:
    """Return the rail that ``entry`` gives this node.

    Unique local addresses (fc00::/7) count as global, loopback addresses only on ``lo`` and only for
    ``host:lo``.

    Args:
        label: the entry's name in messages.
        entry: from the address source; without ``ips`` it only names an interface, as ``host:`` does.
        interface: the kernel's interface named ``entry.interface``.

    Raises:
        TentativeError: duplicate address detection is still running; call again.
        TakenError: duplicate address detection found the address on another machine.
        NetworkError: the rail is unusable for another reason, or its address is ambiguous.
    """
    where = _Where(node, label, interface.name if interface else entry.interface if entry else None)
    if entry is None:
        where.refuse("network-status has no entry for it", _ASK)
    if entry.interface is None:
        where.refuse("network-status names no interface for it", _ASK)
    if interface is None:
        where.refuse(
            "the kernel has no such interface",
            "name one of those that `ip link` shows on that host"
            if entry.on_host
            else f"compare `ip link` on that worker with {entry.origin}; if the interface was removed, "
            "recreate the pod",
        )
    if entry.interface != interface.name:
        where.refuse(f"{entry.origin} has {printable(entry.interface, 40)} for it", _ASK)
    if not interface.up:
        where.refuse("it is down", f"ip link set {where.interface} up")
    if not interface.carrier:
        where.refuse("it has no carrier", "check the parent card of this node, its cable and its switch port")

    usable = [a for a in interface.addresses if _usable(a, interface, entry)]
    named = [address for address in usable if _is_named(address, entry)]
    if entry.network and not named:
        where.refuse(
            f"it has no global address in {entry.network}, only {_names(interface.addresses)}",
            f"ip address add ADDRESS/LENGTH dev {where.interface}, or name another network",
        )
    if entry.on_host and named and family == "auto":
        family = "ipv6" if named[0].family == 6 else "ipv4"
    wanted = _of_family(where, entry, interface, usable, family)
    _check_detection(where, entry, wanted)
    _check_agreement(where, entry, interface)
    chosen = _one(where, entry, wanted)
    return Rail(
        index=rail_index,
        attachment=entry.attachment,
        interface=interface.name,
        address=_ip(chosen),
        family=chosen.family,
        prefix=chosen.prefix,
        mtu=interface.mtu,
        notes=_notes(where, entry, interface, usable, chosen, family),
    )


_ASK = (
    "request the attachment with a fixed `interface` in the pod's networks annotation; the NetworkAttachmentDefinition "
    "needs a cniVersion and an ipam"
)


@dataclass(frozen=True)
class _Where:
    node: str
    label: str
    name: str | None

    @property
    def interface(self) -> str:
        return printable(self.name, 40) if self.name else "no interface"

    def __str__(self) -> str:
        return f"{printable(self.node, 80)}: {self.interface} ({printable(self.label, 120)})"

    def refuse(self, text: str, fix: str) -> NoReturn:
        raise NetworkError(f"{self}: {text}", fix=fix)


def _of_family(
    where: _Where, entry: StatusEntry, interface: Interface, usable: list[Address], family: Family
) -> list[Address]:
    """Return the addresses of the family to use; Gloo's own choice must be among them."""
    four = [address for address in usable if address.family == 4]
    six = [address for address in usable if address.family == 6]
    if not usable:
        has = (
            f"only link-local addresses ({_names(interface.addresses)})"
            if interface.addresses
            else "no address"
        )
        expected = f", but {entry.origin} has {listed(entry.ips)}" if entry.ips else ""
        where.refuse(
            f"it has {has}{expected}",
            "find out why the address was removed, and recreate the worker"
            if entry.ips
            else f"add a global or unique local address: ip address add ADDRESS/64 dev {where.interface}",
        )
    if family == "ipv4" and not four:
        where.refuse(
            f"--family ipv4, but it has only {_names(six)}", "use --family auto, or add an IPv4 address"
        )
    if family == "ipv6" and not six:
        where.refuse(
            f"--family ipv6, but it has only {_names(four)}", "use --family auto, or add an IPv6 address"
        )
    on_loopback = interface.name == "lo" and family == "auto"
    if family == "ipv4" or not six or on_loopback:
        return four or six
    if four:
        # Rejected: IPv6 with a note. The job would run over paths that nobody checked.
        where.refuse(
            f"it has both IPv4 ({_names(four)}) and IPv6 ({_names(six)}) addresses; Gloo would use IPv4, but "
            "torchnet would check IPv6",
            "use --family ipv4, host:NETWORK/LENGTH of the IPv4 address, or an interface without IPv4"
            if entry.on_host
            else "use --family ipv4, or remove the IPv4 address from the attachment",
        )
    return six


def _check_detection(where: _Where, entry: StatusEntry, wanted: list[Address]) -> None:
    failed = [address for address in wanted if address.dadfailed]
    if failed:
        raise TakenError(
            f"{where}: duplicate address detection failed for {_names(failed)}: another machine has this address",
            fix="give this host another address, or remove it from the other machine"
            if entry.on_host
            else "launch again: a pod that has just ended may still have had it, since Whereabouts releases an address "
            "before the interface is removed; if it happens again, use an ipam with one pool for all nodes",
        )
    tentative = [address for address in wanted if address.tentative]
    if tentative:
        raise TentativeError(
            f"{where}: {_names(tentative)} is still tentative: duplicate address detection has not finished",
            fix=f"check `ip -6 address show dev {where.interface}` and the carrier of the parent card",
            interface=where.interface,
            address=_ip(tentative[0]),
        )


def _check_agreement(where: _Where, entry: StatusEntry, interface: Interface) -> None:
    present = {_ip(address) for address in interface.addresses}
    gone = [ip for ip in entry.ips if ip not in present]
    if gone:
        where.refuse(
            f"{entry.origin} has {listed(entry.ips)}, but the kernel has {_names(interface.addresses)}: "
            f"{listed(gone)} is missing",
            "the status is outdated or the address was replaced: recreate the worker",
        )


def _one(where: _Where, entry: StatusEntry, wanted: list[Address]) -> Address:
    """Return the only address, or the one that network-status, its lifetime and Gloo agree on.

    Gloo takes the first that getifaddrs lists: the newest IPv6 address, the oldest IPv4 address. So an
    address that is named and permanent but not first is refused, too.
    """
    if entry.on_host:
        return _first_on_host(where, entry, wanted)
    first = wanted[0]
    named = [address for address in wanted if _is_named(address, entry)]
    if entry.ips and not named:
        where.refuse(
            f"{entry.origin} has {listed(entry.ips)}, but the interface has {_names(wanted)} in this family",
            f"use the --family of the address in {entry.origin}",
        )
    if len(wanted) > 1 and not named == [first] == [a for a in wanted if a.permanent]:
        named_by = f"{entry.origin} has {listed(entry.ips)}" if entry.ips else "the address source has none"
        where.refuse(
            f"it has several global addresses ({_names(wanted)}), Gloo uses the first, and {named_by}",
            "remove all but one, or set accept_ra=0 (tuning plugin) if a router assigns them",
        )
    return first


def _first_on_host(where: _Where, entry: StatusEntry, wanted: list[Address]) -> Address:
    """Return the first address, which Gloo takes, if it is the only one, or in the network that the user named."""
    first = wanted[0]
    named = _is_named(first, entry)
    if entry.network and not named:
        where.refuse(
            f"Gloo would use {_ip(first)}, the first of {_names(wanted)}, and it is not in {entry.network}",
            f"remove {_ip(first)}, or name a network that contains the first address of an interface",
        )
    if len(wanted) > 1 and not named:
        where.refuse(
            f"it has several global addresses ({_names(wanted)}), and Gloo uses the first",
            "name the network of the first one, host:NETWORK/LENGTH, or remove all but one",
        )
    return first


def _notes(
    where: _Where,
    entry: StatusEntry,
    interface: Interface,
    usable: list[Address],
    chosen: Address,
    family: Family,
) -> tuple[str, ...]:
    notes = []
    if interface.name == "lo":
        notes.append(f"{where}: loopback, so the job uses no second network")
    elif chosen.family == 4 and family == "auto":
        notes.append(f"{where}: no global IPv6 address; using IPv4 ({_ip(chosen)})")
    others = [address for address in usable if address is not chosen]
    if others and interface.name != "lo":
        notes.append(f"{where}: using {_ip(chosen)}; the interface also has {_names(others)}")
    if chosen.deprecated:
        notes.append(f"{where}: {_ip(chosen)} is deprecated: its preferred lifetime has ended")
    if entry.mac and entry.mac.lower() != interface.mac.lower():
        notes.append(
            f"{where}: network-status has MAC {printable(entry.mac, 40)}, but the kernel {interface.mac}"
        )
    if entry.mtu and entry.mtu != interface.mtu:
        notes.append(
            f"{where}: network-status has MTU {entry.mtu}, but the kernel {interface.mtu}; using the latter"
        )
    return tuple(notes)


def _is_named(address: Address, entry: StatusEntry) -> bool:
    """Return whether the source has this address, or the user named a network that contains it."""
    ip = _ip(address)
    if not entry.network:
        return ip in entry.ips
    network = ipaddress.ip_network(entry.network)
    return network.version == address.family and ipaddress.ip_address(ip) in network


def _usable(address: Address, interface: Interface, entry: StatusEntry) -> bool:
    ip = ipaddress.ip_address(_ip(address))
    if ip.is_loopback:
        return interface.name == "lo" and not entry.ips
    return address.scope == "global" and not ip.is_link_local and not ip.is_multicast


def _ip(address: Address) -> str:
    return canonical(address.ip) or address.ip


def _names(addresses: Sequence[Address]) -> str:
    return listed([f"{_ip(address)}/{address.prefix}" for address in addresses], 8) or "no address"
