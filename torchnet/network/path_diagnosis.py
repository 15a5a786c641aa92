"""Why workers do not reach each other: concluded from what all of them saw of their paths (pure).

A pod sees neither its node's routes nor a MAC filter. It knows the kind of its own link, and which peers' probes
arrived. Both ends' views, which travel over the frontend, show in which direction packets are lost.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torchnet.network.peer_table import PeerTable
from torchnet.text import listed

_ROUTED = ("l3", "l3s")  # modes of ipvlan: the node routes, and nobody answers neighbour discovery
_SHOWN_NAMES = 4


@dataclass(frozen=True)
class LinkType:
    """What a rail is: its ``kind`` as the kernel calls it ("" for a card), an ipvlan's ``mode``, and its address's
    prefix length."""

    kind: str = ""
    mode: str = ""
    prefix: int = 0

    @property
    def routed(self) -> bool:
        return self.kind == "ipvlan" and self.mode in _ROUTED


@dataclass(frozen=True)
class PathView:
    """What one worker saw in its preflight.

    Attributes:
        host: the name of its node in the cluster, or "".
        links: by rail.
        silent: (node rank, rail) of the peers that have not answered at any packet size.
        heard: (node rank, rail) of the peers whose own probes arrived.
    """

    host: str
    links: tuple[LinkType, ...]
    silent: tuple[tuple[int, int], ...]
    heard: tuple[tuple[int, int], ...]


@dataclass(frozen=True, order=True)
class _Group:
    """Losses with one cause: from the workers of one host to the peers of another one, on a rail."""

    host: str
    other: str
    network: str
    rail: int
    same_network: bool


def explain(table: PeerTable, views: Mapping[int, PathView]) -> list[str]:
    """Return a sentence with its fix for each cause that the views show; without one, nothing.

    Args:
        views: by node rank; of the workers whose preflight failed.
    """
    routed: dict[_Group, list[str]] = {}
    filtered: dict[tuple[str, str, int], list[str]] = {}
    for own, peer, rail in _losses(views):
        view = views[own]
        if rail >= min(len(view.links), len(views[peer].links), len(table.rows[peer].rails)):
            continue
        host, other = view.host, views[peer].host
        if host and host == other:
            continue  # both pods are on one node: neither its routes nor a card matter
        name = table.rows[peer].name
        if view.links[rail].routed:
            networks = [_network(table, rank, rail, views) for rank in (own, peer)]
            group = _Group(
                host or _node_of(table, own),
                other or _node_of(table, peer),
                networks[1],
                rail,
                len(set(networks)) == 1,
            )
            routed.setdefault(group, []).append(name)
        elif view.links[rail].kind == "macvlan" and host and other:
            filtered.setdefault((host, other, rail), []).append(name)
    return [*_about_routes(table, routed), *_about_filters(table, filtered)]


def hint(link: LinkType, interface: str, own: str, peer: str) -> str:
    """Return what a link suggests if ``peer`` (an address) does not answer at all, or ""."""
    if not link.routed:
        return ""
    network = ipaddress.ip_network(f"{own}/{link.prefix}", strict=False)
    if ipaddress.ip_address(peer) in network:
        return f"{interface} is ipvlan in mode {link.mode}: {_ONE_RANGE}"
    range_ = ipaddress.ip_network(f"{peer}/{link.prefix}", strict=False)
    return (
        f"{interface} is ipvlan in mode {link.mode}, and {peer} is of another range: this worker's node needs a route "
        f"to it, and the other node one to {network}; fix: on this worker's node: "
        f"{route_command(str(range_), 'ADDRESS_OF_THE_OTHER_NODE')}"
    )


def route_command(network: str, gateway: str, device: str = "") -> str:
    """Return the command that adds a node's route to the range of another node."""
    family = "-6 " if ":" in network else ""
    return f"ip {family}route replace {network} via {gateway}{f' dev {device}' if device else ''}"


def placeholder(node: str) -> str:
    """Return what stands in a command for a node's own address on the backend, which is not known."""
    return "ADDRESS_OF_" + re.sub("[^A-Z0-9]", "_", node.upper())


_ONE_RANGE = (
    "in this mode nobody answers neighbour discovery, so pods of several nodes cannot share one range; fix: use --mode "
    "l2, or give each node its own part of the range (torchnet manifests backend-network --mode l3 --slice NODE=CIDR)"
)


def _losses(views: Mapping[int, PathView]) -> list[tuple[int, int, int]]:
    """Return (from, to, rail) of the directions in which packets are lost."""
    found = []
    for own, view in views.items():
        for peer, rail in view.silent:
            if peer not in views:
                continue  # one end's view alone shows no direction
            # If the probe arrived, the answer was lost.
            found.append((peer, own, rail) if (own, rail) in views[peer].heard else (own, peer, rail))
    return sorted(set(found))


def _network(table: PeerTable, rank: int, rail: int, views: Mapping[int, PathView]) -> str:
    address = table.rows[rank].rails[rail].address
    return str(ipaddress.ip_network(f"{address}/{views[rank].links[rail].prefix}", strict=False))


def _node_of(table: PeerTable, rank: int) -> str:
    return f"the node of {table.rows[rank].name}"


def _about_routes(table: PeerTable, groups: Mapping[_Group, list[str]]) -> list[str]:
    texts = []
    for group, names in sorted(groups.items()):
        interface = table.rows[0].rails[group.rail].interface
        peers = listed(list(dict.fromkeys(names)), _SHOWN_NAMES)
        if group.same_network:
            texts.append(
                f"no answer from the pods of {group.other} ({peers}), which are in the same range as those of "
                f"{group.host}: {interface} is ipvlan in mode l3 or l3s: {_ONE_RANGE}"
            )
            continue
        gateway = placeholder(group.other)
        texts.append(
            f"no answer from the pods of {group.other} ({peers}), and their range {group.network} is another one: "
            f"{interface} is ipvlan in mode l3 or l3s, where the node routes, and {group.host} has no route to that "
            f"range; fix: on {group.host} run: {route_command(group.network, gateway)}, where {gateway} is "
            f"the address of {group.other} on the backend"
        )
    return texts


def _about_filters(table: PeerTable, groups: Mapping[tuple[str, str, int], list[str]]) -> list[str]:
    if not groups:
        return []
    rail = next(iter(groups))[2]
    interface = table.rows[0].rails[rail].interface
    hosts = listed([f"{host} to {other}" for host, other, _ in sorted(groups)], _SHOWN_NAMES)
    return [
        f"nothing that pods sent from {hosts} arrived: {interface} is macvlan, where each pod has its own MAC address, "
        "and most likely a hypervisor, a cloud or a switch port lets only the card's own address pass; fix: use ipvlan "
        "in mode l2 (torchnet manifests backend-network --type ipvlan), or allow further MAC addresses there; "
        "promiscuous mode on the node does not help"
    ]
