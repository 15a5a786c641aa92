"""Find the backend among a host's interfaces, if nobody names it. Pure.

Interfaces of containers, virtual machines and tunnels never count. Of several others the fastest do, and of equally
fast ones those without the default route, which leads to the frontend.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torchnet.constants import MAX_RAILS
from torchnet.errors import NetworkError
from torchnet.network.interface_selection import Address, Family, Interface
from torchnet.text import listed

# docker0 and br-<id> are Docker's, virbr and vnet libvirt's, veth the host's ends of containers' interfaces; then those
# of CNI plugins, of Kubernetes' Services and of hypervisors, which lead to no other machine.
_INTERNAL = (
    "(docker|virbr|vnet|veth|cni|lxc|lxd|kube|nodelocaldns|podman|nerdctl|dummy|ifb|vmnet|vboxnet).*|"
    "br-[0-9a-f]{12}|lo"
)
# Overlays of CNI plugins (flannel, Calico, Cilium, Weave, Antrea, OVN), and tunnels.
_TUNNEL = "(flannel|cali|vxlan|geneve?|antrea|cilium|weave|ovn|tun|tap|wg|tailscale|zt|sit|gre|ip6tnl|ipip).*"
_NEVER = re.compile(f"{_INTERNAL}|{_TUNNEL}")


@dataclass(frozen=True)
class FoundRails:
    """The rails that were found.

    Attributes:
        interfaces: By rail.
        networks: By interface, the network of its address in CIDR notation.
        others: Further interfaces of this host, with the reason for those that cannot carry traffic: ``eth1 (down)``.
    """

    interfaces: tuple[str, ...]
    networks: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def external(interfaces: Mapping[str, Interface]) -> frozenset[str]:
    """Return the interfaces that may lead to other machines: tunnels, too, but no bridges of containers."""
    return frozenset(
        name
        for name, one in interfaces.items()
        if not re.fullmatch(_INTERNAL, name) and one.up and any(map(_is_global, one.addresses))
    )


def cards(interfaces: Mapping[str, Interface], family: Family = "auto") -> dict[str, str]:
    """Return the interfaces that may be a rail, each with the network of its first address."""
    return {
        name: network
        for name, one in interfaces.items()
        if not _NEVER.fullmatch(name) and one.up and one.carrier and (network := network_of(one, family))
    }


def network_of(interface: Interface, family: Family = "auto") -> str:
    """Return the network of the address that Gloo would use: IPv4 first; "" if there is none."""
    usable = [one for one in interface.addresses if _is_global(one)]
    four = [one for one in usable if one.family == 4 and family != "ipv6"]
    six = [one for one in usable if one.family == 6 and family != "ipv4"]
    first = next(iter(four or six), None)
    return str(ipaddress.ip_network((first.ip, first.prefix), strict=False)) if first else ""


def _is_global(address: Address) -> bool:
    ip = ipaddress.ip_address(address.ip)
    return address.scope == "global" and not (ip.is_loopback or ip.is_link_local or ip.is_multicast)


def find_rails(
    interfaces: Mapping[str, Interface],
    speeds: Mapping[str, int],
    *,
    default_routes: Collection[str] = (),
    endpoint: str = "",
    family: Family = "auto",
) -> FoundRails:
    """Find the rails of this host.

    Args:
        interfaces: The kernel's, by name.
        speeds: In bits per second, of the interfaces whose driver reports it.
        default_routes: Interfaces of the default routes.
        endpoint: The interface that has, or leads to, the rendezvous's address; "" if that is not known.

    Raises:
        NetworkError: No interface qualifies, or too many do.
    """
    networks = cards(interfaces, family)
    if not networks:
        raise NetworkError(
            f"no interface can be the backend: {_have(interfaces)}",
            fix="--network host:INTERFACE, or host:NETWORK/LENGTH where names differ between hosts",
        )
    left = list(networks)
    if all(speeds.get(name) for name in left):
        fastest = max(speeds[name] for name in left)
        left = [name for name in left if speeds[name] == fastest]
    for frontend in (set(default_routes), {endpoint}):
        if len(left) > 1 and (rest := [name for name in left if name not in frontend]) and rest != left:
            left = rest
            break
    if len(left) > MAX_RAILS:
        raise NetworkError(
            f"{len(left)} interfaces could be the backend; the limit is {MAX_RAILS} rails",
            fix="--network host:INTERFACE[,…]",
        )
    left = in_order(left, networks)
    return FoundRails(
        tuple(left),
        {name: networks[name] for name in left},
        _others(interfaces, networks, left, family),
    )


def rails_on(
    networks: Sequence[str], interfaces: Mapping[str, Interface], family: Family = "auto"
) -> FoundRails | None:
    """Return the rails on these networks, one for each; None if this host does not have an interface in each.

    Args:
        networks: Rank 0's, by rail, in CIDR notation.
        interfaces: The kernel's, by name.
    """
    usable = cards(interfaces, family)
    found: dict[str, str] = {}
    for text in networks:
        network = ipaddress.ip_network(text)
        name = next((one for one in usable if one not in found and _holds(interfaces[one], network)), None)
        if name is None:
            return None
        found[name] = text
    return FoundRails(tuple(found), found, _others(interfaces, usable, found, family))


def missing_on(
    networks: Sequence[str],
    names: Sequence[str],
    interfaces: Mapping[str, Interface],
    family: Family = "auto",
) -> tuple[str, str]:
    """Return the first of rank 0's networks that this host is not in, and why; ("", "") if it is in all.

    Args:
        networks: Rank 0's, by rail, in CIDR notation.
        names: Rank 0's interfaces, by rail.

    Returns:
        The network; and ``eth1: down`` if the interface of the same name here has no address in any network, else "".
    """
    usable = cards(interfaces, family)
    for text, name in zip(networks, names, strict=True):
        network = ipaddress.ip_network(text)
        if not any(_holds(interfaces[one], network) for one in usable):
            card = interfaces.get(name)
            return text, f"{name}: {_why_not(card, family)}" if card and name not in usable else ""
    return "", ""


def _others(
    interfaces: Mapping[str, Interface], usable: Collection[str], rails: Collection[str], family: Family
) -> tuple[str, ...]:
    left = [name for name in interfaces if name not in rails and not _NEVER.fullmatch(name)]
    return tuple(
        name if name in usable else f"{name} ({_why_not(interfaces[name], family)})" for name in left
    )


def _holds(interface: Interface, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    return any(ipaddress.ip_address(one.ip) in network for one in interface.addresses if _is_global(one))


def in_order(names: Sequence[str], networks: Mapping[str, str]) -> list[str]:
    """Sort interfaces by network, so that rail i is the same network on hosts that name its interface differently."""

    def key(name: str) -> tuple[int, int, str]:
        network = ipaddress.ip_network(networks[name])
        return network.version, int(network.network_address), name

    return sorted(names, key=key)


def _why_not(one: Interface, family: Family = "auto") -> str:
    if not one.up or not one.carrier:
        return "down"
    if not any(map(_is_global, one.addresses)):
        return "no address"
    return "of containers or a tunnel" if network_of(one, family) else f"no {family} address"


def _have(interfaces: Mapping[str, Interface]) -> str:
    shown = [f"{name} ({_why_not(one)})" for name, one in interfaces.items() if name != "lo"]
    return f"this host has {listed(shown, 8) or 'no interface besides lo'}"
