"""Backend networks that a host has itself, without Multus: ``host:ens5``, ``host:10.10.0.0/16``, ``rdma:mlx5_0``. Pure.

``host:`` names interfaces, or the network of which the interface has an address (for hosts whose interfaces have
different names). ``rdma:`` names RDMA devices whose traffic is backend traffic, for example InfiniBand adapters without
an IP interface.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torchnet.constants import MAX_RAILS
from torchnet.errors import NetworkError
from torchnet.network.address_sources import interface_problem
from torchnet.network.interface_selection import Interface
from torchnet.network.network_status import canonical
from torchnet.text import listed, printable

FORM = "host:INTERFACE[,…], host:NETWORK/LENGTH[,…] or rdma:DEVICE[,…]"
Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
# Kernel names such as mlx5_0 and bnxt_re1 (IB_DEVICE_NAME_MAX is 64 with the terminating NUL).
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class HostNetwork:
    """One part of a ``--network`` value: an interface, a network in CIDR notation, or an RDMA device."""

    kind: Literal["host", "rdma"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def prefix(self) -> Prefix | None:
        """The network of ``host:10.10.0.0/16``; None for an interface or a device."""
        return ipaddress.ip_network(self.name) if self.kind == "host" and "/" in self.name else None


def is_host_network(text: str) -> bool:
    """Return whether a ``--network`` value has this form; a NetworkAttachmentDefinition's name has no colon."""
    return text.startswith(("host:", "rdma:"))


def parse_host_network(text: str) -> list[HostNetwork]:
    """Parse one ``--network`` value.

    Raises:
        ValueError: The text completes a sentence that begins with the input, and names every invalid part.
    """
    kind, _, rest = text.partition(":")
    if kind not in ("host", "rdma"):
        raise ValueError(f"is not {FORM}")
    found: list[HostNetwork] = []
    problems = []
    for part in rest.split(","):
        name, problem = _name(kind, part.strip())
        network = HostNetwork("host" if kind == "host" else "rdma", name)
        if problem:
            problems.append(problem)
        elif network in found:
            problems.append(f"{printable(name, 80)} is given twice")
        else:
            found.append(network)
    if problems:
        raise ValueError(f"is invalid: {'; '.join(problems)}")
    return found


def _name(kind: str, part: str) -> tuple[str, str | None]:
    """Return a part in canonical form, and its problem."""
    shown = f'"{printable(part, 80)}"'
    if kind == "rdma":
        return part, None if _DEVICE.fullmatch(part) else f"{shown} is not the name of an RDMA device"
    if "/" not in part:
        return part, interface_problem(part)
    try:
        network = ipaddress.ip_network(part, strict=False)
    except ValueError:
        return part, f"{shown} is not a network such as 10.10.0.0/16"
    if network.is_link_local or network.is_loopback:
        return part, f"{shown} is link-local or loopback"
    return str(network), None


@dataclass(frozen=True)
class HostBackend:
    """The backend of this host.

    Attributes:
        interfaces: By rail, in the order in which they were named.
        prefixes: Networks whose addresses belong to peers, as text.
        devices: RDMA devices that were named.
        networks: By interface, the first network in CIDR notation that selected it; the rail's address is in it.
    """

    interfaces: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)


def select_backend(
    networks: Sequence[HostNetwork], interfaces: Mapping[str, Interface], devices: Iterable[str]
) -> HostBackend:
    """Find the named networks on this host.

    Args:
        interfaces: The kernel's, by name.
        devices: The RDMA devices that processes can open.

    Raises:
        NetworkError: names everything that this host does not have, and what it has.
    """
    devices = tuple(devices)
    names: list[str] = []
    prefixes: list[str] = []
    selected_by: dict[str, str] = {}
    problems = []
    for network in networks:
        prefix = network.prefix
        if network.kind == "rdma":
            if network.name not in devices:
                problems.append(
                    f"{network}: this user can open no RDMA device of that name, but "
                    f"{listed(devices, 8) or 'no other one either'}"
                )
        elif prefix is not None:
            holders = [
                one.name for one in interfaces.values() if any(_within(ip, prefix) for ip in _ips(one))
            ]
            if not holders:
                problems.append(
                    f"{network}: no interface has an address in this network; {_have(interfaces)}"
                )
            names += holders
            selected_by = dict.fromkeys(holders, str(prefix)) | selected_by
            prefixes.append(str(prefix))
        elif network.name not in interfaces:
            problems.append(f"{network}: no such interface; {_have(interfaces)}")
        elif not (own := own_prefixes(interfaces[network.name])):
            problems.append(f"{network}: the interface has no address")
        else:
            names.append(network.name)
            prefixes += own
    names = list(dict.fromkeys(names))
    if len(names) > MAX_RAILS:
        problems.append(f"{len(names)} interfaces; the limit is {MAX_RAILS} rails")
    if problems:
        raise NetworkError("--network " + "\n".join(problems), fix="ip address; ls /sys/class/infiniband")
    named = tuple(one.name for one in networks if one.kind == "rdma")
    return HostBackend(tuple(names), tuple(dict.fromkeys(prefixes)), named, selected_by)


def own_prefixes(interface: Interface) -> list[str]:
    """Return the networks of an interface's addresses, including link-local ones."""
    return [
        str(ipaddress.ip_network((canonical(one.ip) or one.ip, one.prefix), strict=False))
        for one in interface.addresses
    ]


def _ips(interface: Interface) -> list[str]:
    return [one.ip for one in interface.addresses]


def _within(address: str, prefix: Prefix) -> bool:
    ip = ipaddress.ip_address(address)
    return ip.version == prefix.version and ip in prefix


def _have(interfaces: Mapping[str, Interface]) -> str:
    shown = [
        f"{one.name} ({', '.join(f'{a.ip}/{a.prefix}' for a in one.addresses) or 'no address'})"
        for one in interfaces.values()
        if one.name != "lo"
    ]
    return f"this host has {listed(shown, 8) or 'no interface'}"
