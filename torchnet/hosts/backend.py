"""The backend of this host: named by the user, exported for NCCL or Gloo, or found among the interfaces."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torchnet.agent.rdma import admitted
from torchnet.config.job_spec import JobSpec
from torchnet.errors import NetworkError
from torchnet.hosts.host_endpoint import HostEndpoint
from torchnet.hosts.rail_search import (
    FoundRails,
    cards,
    external,
    find_rails,
    in_order,
    missing_on,
    network_of,
    rails_on,
)
from torchnet.linux import rtnetlink
from torchnet.linux.link_speed import speed
from torchnet.network.host_networks import select_backend
from torchnet.network.interface_selection import Family, Interface
from torchnet.text import listed, printable

# NCCL's list has prefixes, or exact names after "="; Gloo's has exact names.
_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


@dataclass(frozen=True)
class ChosenBackend:
    """The rails of this host.

    Attributes:
        interfaces: By rail.
        networks: By interface, the network of its address in CIDR notation.
        why: How they were chosen, for the user; "" if the user named them.
        is_found: Whether nobody chose them.
        only_network: Whether this host has no other network that the job's traffic could take.
        excluded: Interfaces that a variable of this host excludes, such as ``NCCL_SOCKET_IFNAME=^docker0,lo``.
    """

    interfaces: tuple[str, ...]
    networks: Mapping[str, str]
    why: str = ""
    is_found: bool = False
    only_network: bool = False
    excluded: frozenset[str] = frozenset()

    @property
    def source(self) -> str:
        """The address source, as ``--address-source`` names it."""
        return f"host:{','.join(self.interfaces)}"


def choose(job: JobSpec, endpoint: HostEndpoint, environ: Mapping[str, str]) -> ChosenBackend:
    """Choose this host's rails.

    Raises:
        NetworkError: The host does not have the named network, or no interface qualifies.
    """
    present = _interfaces()
    family = job.network.family
    named = [one for one in job.network.host_networks if one.kind == "host"]
    if named:
        backend = select_backend(named, present, ())
        names = backend.interfaces
        networks = {name: backend.networks.get(name) or network_of(present[name], family) for name in names}
        return ChosenBackend(names, networks, only_network=_only(names, present))
    excluded: set[str] = set()
    for variable in _VARIABLES:
        chosen = environ.get(variable, "").strip()
        if not chosen:
            continue
        names = tuple(name for name in present if name != "lo" and _admits(variable, chosen, name))
        if chosen.startswith("^"):
            excluded |= {name for name in present if name not in names}
            continue
        networks = {name: network for name in names if (network := network_of(present[name], family))}
        if not networks:
            raise NetworkError(
                f"{variable}={printable(chosen, 80)} names no interface with an address here; this host has "
                f"{listed([name for name in present if name != 'lo'], 8) or 'none besides lo'}",
                fix=f"unset {variable}, or --network host:INTERFACE",
            )
        names = tuple(in_order(list(networks), networks))
        return ChosenBackend(names, networks, f"by {variable}", only_network=_only(names, present))
    left = {name: one for name, one in present.items() if name not in excluded}
    found = find_rails(
        left,
        {name: rate for name in cards(left, family) if (rate := speed(name))},
        default_routes={rtnetlink.default_interface(4), rtnetlink.default_interface(6)} - {""},
        endpoint=endpoint.interface(),
        family=family,
    )
    return replace(_found("chosen automatically", found, present), excluded=frozenset(excluded))


def follow(
    chosen: ChosenBackend, networks: Sequence[str], interfaces: Sequence[str], family: Family, name: str
) -> ChosenBackend:
    """Return the rails on the networks of rank 0's, where nobody chose them; ``chosen`` if this host lacks one.

    Hosts may have different networks with routers between them, so that a host that lacks one is refused only if its
    interface of the same name could have the address. It would use its frontend, and the routes would not fit.

    Two hosts may find different rails: only one has a default route, or only one knows which interface leads to the
    endpoint, whose name means 127.0.1.1 on its own host.

    Args:
        chosen: From :func:`choose`.
        networks: Rank 0's, by rail, in CIDR notation; () if they are not known.
        interfaces: Rank 0's, by rail.
        name: This host's.

    Raises:
        NetworkError: This host's interface on such a network is down or has no address.
    """
    if not chosen.is_found or not networks:
        return chosen
    present = _interfaces()
    left = {name: one for name, one in present.items() if name not in chosen.excluded}
    found = rails_on(networks, left, family)
    if found is not None:
        same = found.interfaces == chosen.interfaces
        return chosen if same else _found("chosen as on node 0", found, present)
    network, reason = missing_on(networks, interfaces, left, family)
    if reason:
        raise NetworkError(
            f"{name} has no interface in node 0's backend {network} ({reason})",
            fix=f"set {reason.partition(':')[0]} up with an address in {network}, or choose another network on all "
            "hosts: --network host:NETWORK/LENGTH",
        )
    return replace(chosen, why=f"{chosen.why}; none is in node 0's {network}") if network else chosen


def check_port(chosen: ChosenBackend, port: int) -> None:
    """Check that this host can open a UDP port on its rails.

    Raises:
        OSError: It cannot.
    """
    present = _interfaces()
    for name, network in chosen.networks.items():
        inside = ipaddress.ip_network(network or "::/128")
        for one in present[name].addresses if name in present else ():
            if ipaddress.ip_address(one.ip) in inside:
                family = socket.AF_INET6 if one.family == 6 else socket.AF_INET
                with socket.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.bind((one.ip, port))


def _found(how: str, found: FoundRails, present: Mapping[str, Interface]) -> ChosenBackend:
    why = f"{how}; not used: {listed(found.others, 8)}" if found.others else how
    only = _only(found.interfaces, present)
    return ChosenBackend(found.interfaces, found.networks, why, is_found=True, only_network=only)


def _only(names: tuple[str, ...], present: Mapping[str, Interface]) -> bool:
    return len(names) == 1 and external(present) <= set(names)


def _interfaces() -> Mapping[str, Interface]:
    try:
        return rtnetlink.interfaces()
    except OSError as error:
        raise NetworkError(f"cannot list the network interfaces: {error.strerror or error}") from None


def _admits(variable: str, chosen: str, name: str) -> bool:
    if variable == "NCCL_SOCKET_IFNAME":
        return admitted(chosen, name)
    return name in [part.strip() for part in chosen.split(",")]
