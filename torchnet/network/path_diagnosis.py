"""Why workers do not reach each other: concluded from what all of them saw of their paths (pure).

A pod sees neither its node's routes nor a MAC filter. It knows the kind of its own link, and which peers' probes
arrived. Both ends' views, which travel over the frontend, show in which direction packets are lost.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from torchnet.network import probe_plan
from torchnet.network.peer_table import PeerTable
from torchnet.text import listed

_ROUTED = ("l3", "l3s")  # modes of ipvlan: the node routes, and nobody answers neighbour discovery
_SHOWN_NAMES = 4
MOST_PATHS = 512  # of a view: all of 64 workers with 8 rails. Who sends as many may have more
_MOST_GROUPS = 64  # more than anybody reads


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
    """What one worker saw in its preflight. One whose preflight succeeded has no more to say than its ``host``.

    Attributes:
        host: the name of its node in the cluster, or "".
        links: by rail.
        silent: (node rank, rail) of the peers that have not answered at any packet size; at most MOST_PATHS.
        heard: (node rank, rail) of the peers whose own probes arrived; at most MOST_PATHS.
    """

    host: str
    links: tuple[LinkType, ...] = ()
    silent: tuple[tuple[int, int], ...] = ()
    heard: tuple[tuple[int, int], ...] = ()


class _Group(NamedTuple):
    """Losses with one cause: from the workers of one host to the peers of another one, on a rail.

    ``mode``, ``network``, the peers' range, and ``own_network`` are those of routed links; "" for macvlan.
    """

    host: str
    other: str
    network: str
    rail: int
    mode: str = ""
    own_network: str = ""

    @property
    def routed(self) -> bool:
        return bool(self.mode)

    @property
    def same_network(self) -> bool:
        return self.network == self.own_network


def explain(table: PeerTable, views: Mapping[int, PathView], mode: probe_plan.Mode = "auto") -> list[str]:
    """Return a sentence with its fix for each cause that the views show; without one, nothing.

    A route or a filter concerns all pods of a node: if any of them reaches the others, neither is the cause.

    Args:
        views: by node rank.
        mode: which peers each worker has probed.
    """
    paths = _Paths(table, views, mode)
    groups: dict[_Group, set[int]] = {}
    for own, peer, rail in paths.losses():
        group = paths.group(own, peer, rail)
        if group is not None:
            groups.setdefault(group, set()).add(peer)
    lost = islice((one for one in sorted(groups) if not paths.any_passed(one)), _MOST_GROUPS)
    routed, filtered = [], defaultdict(list)
    for group in lost:
        if group.routed:
            routed.append(
                _about_route(table, group, [table.rows[peer].name for peer in sorted(groups[group])])
            )
        else:
            filtered[group.rail].append(f"{group.host} to {group.other}")
    return [*routed, *(_about_filter(table, rail, hosts) for rail, hosts in sorted(filtered.items()))]


def hint(link: LinkType, interface: str, own: str, peer: str) -> str:
    """Return what a link suggests if ``peer`` (an address) does not answer at all, or ""."""
    if not link.routed:
        return ""
    network = ipaddress.ip_network(f"{own}/{link.prefix}", strict=False)
    if ipaddress.ip_address(peer) in network:
        return f"{interface} is ipvlan in mode {link.mode}, {_ONE_RANGE}"
    range_ = ipaddress.ip_network(f"{peer}/{link.prefix}", strict=False)
    return (
        f"{interface} is ipvlan in mode {link.mode}, where the nodes route, and {peer} is not in this worker's range. "
        f"This worker's node, and routers between the nodes, need a route to {range_}, and in the other direction one "
        f"to {network}; fix: if the nodes share a segment, on this worker's node: "
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
    "in which nobody answers neighbour discovery, so that pods of several nodes cannot share one range; fix: use "
    "--mode l2 if the nodes share a segment, or give each node its own part of the range (torchnet manifests "
    "backend-network --mode l3 --slice NODE=CIDR)"
)


class _Paths:
    """The directions in which packets were lost or arrived, as the views have them."""

    def __init__(self, table: PeerTable, views: Mapping[int, PathView], mode: probe_plan.Mode) -> None:
        self._table, self._views, self._mode = table, views, mode
        self._silent = {rank: frozenset(view.silent) for rank, view in views.items()}
        self._heard = {rank: frozenset(view.heard) for rank, view in views.items()}
        self._planned: dict[int, frozenset[int]] = {}
        self._networks: dict[tuple[int, int, int], str] = {}
        self._ranges: dict[tuple[int, int], dict[str, list[int]]] = {}
        self._members: dict[str, list[int]] = defaultdict(list)
        for rank in sorted(views):
            self._members[views[rank].host].append(rank)

    def losses(self) -> Iterator[tuple[int, int, int]]:
        """Yield (from, to, rail) of the directions in which packets are lost, some of them twice."""
        for own, view in self._views.items():
            for peer, rail in view.silent:
                if not self._silent.get(peer):
                    continue  # one end's view alone shows no direction
                if (own, rail) in self._heard[peer]:
                    yield peer, own, rail  # the probe arrived, so that the answer was lost
                elif len(self._heard[peer]) < MOST_PATHS:
                    yield own, peer, rail

    def group(self, own: int, peer: int, rail: int) -> _Group | None:
        """Return what a loss belongs to; None if neither a node's routes nor a filter can be its cause."""
        view, its = self._views[own], self._views[peer]
        if rail >= min(len(view.links), len(its.links), len(self._table.rows[peer].rails)):
            return None
        if view.host and view.host == its.host:
            return None  # both pods are on one node: neither its routes nor a card matter
        link, known = view.links[rail], bool(view.host and its.host)  # unknown nodes may be one
        if link.routed:
            mine, network = (
                self._network(one, rail, self._views[one].links[rail].prefix) for one in (own, peer)
            )
            if known or mine != network:
                host, other = view.host or self._node(mine, rail), its.host or self._node(network, rail)
                return _Group(host, other, network, rail, link.mode, mine)
        elif link.kind == "macvlan" and known:
            return _Group(view.host, its.host, "", rail)
        return None

    def any_passed(self, group: _Group) -> bool:
        """Return whether packets of any worker of the host arrived where all of the group's were lost."""
        workers, others = (
            self._members[name] if name in self._members else self._in_range(network, group.rail)
            for name, network in ((group.host, group.own_network), (group.other, group.network))
        )
        if not group.same_network:  # a route is one to the whole range
            others = self._in_range(group.network, group.rail)
        return any(self._passed(own, peer, group.rail) for own in workers for peer in others if own != peer)

    def _passed(self, own: int, peer: int, rail: int) -> bool:
        return (
            (own, rail) in self._heard.get(peer, ())
            or self._answered(own, peer, rail)
            or self._answered(peer, own, rail)
        )

    def _answered(self, own: int, peer: int, rail: int) -> bool:
        silent = self._silent.get(own)
        if silent is None or len(silent) >= MOST_PATHS or (peer, rail) in silent:
            return False
        nnodes = len(self._table.rows)
        if probe_plan.all_pairs(nnodes, self._mode):
            return True
        if own not in self._planned:
            self._planned[own] = frozenset(probe_plan.peers(own, nnodes, self._mode))
        return peer in self._planned[own]

    def _in_range(self, network: str, rail: int) -> list[int]:
        prefix = int(network.partition("/")[2])
        if (rail, prefix) not in self._ranges:
            found = self._ranges[rail, prefix] = defaultdict(list)
            for row in self._table.rows:
                found[self._network(row.node_rank, rail, prefix)].append(row.node_rank)
        return self._ranges[rail, prefix][network]

    def _network(self, rank: int, rail: int, prefix: int) -> str:
        key = rank, rail, prefix
        if key not in self._networks:
            address = self._table.rows[rank].rails[rail].address
            self._networks[key] = str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))
        return self._networks[key]

    def _node(self, network: str, rail: int) -> str:
        """Name a node whose name is unknown: where nodes route, each has a range of its own."""
        return f"the node of {self._table.rows[self._in_range(network, rail)[0]].name}"


def _about_route(table: PeerTable, group: _Group, names: Sequence[str]) -> str:
    link = f"{table.rows[0].rails[group.rail].interface} is ipvlan in mode {group.mode}"
    pods = f"no answer from the pods of {group.other} ({listed(names, _SHOWN_NAMES)})"
    if group.same_network:
        return f"{pods}, which are in the same range as those of {group.host}. {link}, {_ONE_RANGE}"
    gateway = placeholder(group.other)
    return (
        f"{pods} in {group.network}, which is not the range of {group.host}. {link}, where the nodes route. Most "
        f"likely {group.host}, or a router between the nodes, has no route to that range.\n"
        f"  fix: if the nodes share a segment, on {group.host} run:\n    {route_command(group.network, gateway)}\n"
        f"  {gateway} is the address of {group.other} on the backend. Else add the route on the routers between the "
        f"nodes, and one through its router on {group.host}"
    )


def _about_filter(table: PeerTable, rail: int, hosts: Sequence[str]) -> str:
    return (
        f"nothing that pods sent from {listed(hosts, _SHOWN_NAMES)} arrived: {table.rows[0].rails[rail].interface} is "
        "macvlan, where each pod has its own MAC address.\n"
        "  If the nodes' own addresses on the backend reach each other, most likely a hypervisor, cloud or switch port "
        "lets only the card's own address pass. Promiscuous mode on the node does not help.\n"
        "  fix: allow further MAC addresses there, or use ipvlan in mode l2:\n"
        "    torchnet manifests backend-network --type ipvlan\n"
        "  If they do not, the cards share no segment.\n"
        "  fix: mend the cable, the VLAN or the switch, or, with routers between the nodes, use ipvlan in mode l3"
    )
