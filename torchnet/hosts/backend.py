"""The backend of this host: named by the user, exported for NCCL or Gloo, or found among the interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchnet.agent.rdma import admitted
from torchnet.config.job_spec import JobSpec
from torchnet.errors import NetworkError
from torchnet.hosts.host_endpoint import HostEndpoint
from torchnet.hosts.rail_search import cards, find_rails, in_order, network_of
from torchnet.linux import rtnetlink
from torchnet.linux.link_speed import speed
from torchnet.network.host_networks import select_backend
from torchnet.network.interface_selection import Interface
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
        only_network: Whether this host has no other network that the job's traffic could take.
    """

    interfaces: tuple[str, ...]
    networks: Mapping[str, str]
    why: str = ""
    only_network: bool = False

    @property
    def source(self) -> str:
        """The address source, as ``--address-source`` names it."""
        return f"host:{','.join(self.interfaces)}"


def choose(job: JobSpec, endpoint: HostEndpoint, environ: Mapping[str, str]) -> ChosenBackend:
    """Choose this host's rails.

    Raises:
        NetworkError: The host does not have the named network, or no interface qualifies.
    """
    try:
        present = rtnetlink.interfaces()
    except OSError as error:
        raise NetworkError(f"cannot list the network interfaces: {error.strerror or error}") from None
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
    why = f"found; not used: {listed(found.others, 8)}" if found.others else "found"
    return ChosenBackend(found.interfaces, found.networks, why, only_network=_only(found.interfaces, present))


def _admits(variable: str, chosen: str, name: str) -> bool:
    if variable == "NCCL_SOCKET_IFNAME":
        return admitted(chosen, name)
    return name in [part.strip() for part in chosen.split(",")]


def _only(names: tuple[str, ...], present: Mapping[str, Interface]) -> bool:
    return len(names) == 1 and not set(cards(present)) - set(names)
