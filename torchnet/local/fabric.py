"""The local networks: a frontend and a backend bridge; each node has eth0, and a macvlan on its own ens5.

    node's namespace:   eth0                 net1 (macvlan)
                          |                    |
    the fabric's:      eth0.N              ens5.N ─ back0.N
                          |                    (veth)  |
                       front (bridge)               back0 (bridge; one for each rail)

The bridges have no addresses: nodes can only reach each other through these links.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from errno import EINVAL, ENETDOWN, ENODEV

from torchnet.config.parsing import parse_rate
from torchnet.linux import link_setup, namespaces, nftables_loss, tap
from torchnet.linux.netlink import Netlink
from torchnet.local.faults import InjectedFaults
from torchnet.local.topology import GATEWAY, TAP, NodePlan, PortPlan

_FRONT = 100  # interface indexes in the fabric: bridges from here on, then the ports in node order
_BACK = _FRONT + 1
_CARRIER_SECONDS = 2.0


@dataclass
class Fabric:
    """The built networks; ``namespaces`` are descriptors of the nodes' network namespaces, in node order."""

    namespaces: list[int]
    bridges: Netlink
    inside: list[Netlink]
    """A netlink socket in each node's namespace."""

    def close_namespaces(self) -> None:
        for descriptor in self.namespaces:
            os.close(descriptor)


def build_fabric(
    nodes: Sequence[NodePlan],
    *,
    rate: int | None,
    mtu: int,
    internet: bool,
    faults: InjectedFaults | None = None,
) -> Fabric:
    """Build the networks in this process's network namespace, and a namespace for each node.

    Args:
        nodes: their names, addresses and ports.
        rate: bits per second in each direction of each backend link; None: unlimited.
        mtu: of the backend, in bytes; the frontend has 1500.
        internet: whether nodes get a default route through eth0.
        faults: faults that the networks have from the start.

    Raises:
        OSError: the kernel refused a link or another part; contains the kernel's message.
    """
    _sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    _sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    faults = faults or InjectedFaults()
    fabric = Netlink()
    namespaces, sockets = _namespaces(nodes, own, faults)
    os.close(own)
    rails = len(nodes[0].backend)
    links = [link_setup.up(1), link_setup.bridge("front", index=_FRONT)]
    links += [link_setup.bridge(f"back{rail}", mtu=mtu, index=_BACK + rail) for rail in range(rails)]
    late: list[bytes] = []
    lossy: list[tuple[PortPlan, float]] = []
    blocked: list[int] = []
    index = _BACK + rails
    for node, namespace in zip(nodes, namespaces, strict=True):
        eth0 = node.frontend
        links.append(
            link_setup.veth(
                eth0.port,
                "eth0",
                mtu=1500,
                master=_FRONT,
                index=index,
                peer_namespace=namespace,
                peer_mac=eth0.mac,
                peer_index=eth0.index,
            )
        )
        index += 1
        for rail, port in enumerate(node.backend):
            inner, outer = index, index + 1
            index += 2
            own_mtu = int(faults.has(node, port, "mtu") or mtu)
            links.append(
                link_setup.veth(
                    port.port, port.parent, mtu=mtu, master=_BACK + rail, index=outer, peer_index=inner
                )
            )
            links.append(link_setup.up(inner))
            if faults.has(node, port, "no-interface") is None:
                links.append(
                    link_setup.macvlan(
                        port.interface,
                        parent=inner,
                        namespace=namespace,
                        mac=port.mac,
                        index=port.index,
                        mtu=own_mtu,
                    )
                )
            late += _shapers(node, port, inner, outer, rate, mtu, faults)
            if faults.has(node, port, "narrow") is not None:
                # The far end of the cable accepts smaller packets than the interface may send.
                late.append(link_setup.set_mtu(outer, int(faults.has(node, port, "narrow") or mtu)))
            if faults.has(node, port, "no-carrier") is not None:
                late.append(link_setup.down(outer))
            if faults.has(node, port, "lossy") is not None:
                blocked.append(outer)
            if percent := faults.has(node, port, "loss"):
                # Each end of the cable segments what it sends, so that the other end can lose single packets.
                late += [nftables_loss.single_packets(inner), nftables_loss.single_packets(outer)]
                lossy.append((port, float(percent) / 100))
    fabric.batch(links)
    if internet:
        tap.make(TAP)
        fabric.batch([link_setup.port(link_setup.index_of(fabric, TAP), _FRONT)])
    fabric.batch(late)
    for index in blocked:
        _block(fabric, index)
    for port, share in lossy:
        nftables_loss.lose([port.port, port.parent], share)
    neighbours = _neighbours(nodes)
    for node, netlink in zip(nodes, sockets, strict=True):
        netlink.batch(_inside(node, nodes, faults))
        netlink.batch([link_setup.default_route(GATEWAY)] if internet else [])
        # A fault may have removed an interface or set it down; it then takes no neighbour entries.
        netlink.batch(
            [m for rank, m in neighbours if rank != node.rank], ignore=frozenset({ENODEV, EINVAL, ENETDOWN})
        )
    return Fabric(namespaces, fabric, sockets)


def _block(fabric: Netlink, port: int) -> None:
    """Block a bridge port, once the bridge has detected its carrier.

    The bridge detects it a moment after the link is created, and then enables a port that was disabled before
    (net/bridge/br_if.c, br_port_carrier_check).
    """
    deadline = time.monotonic() + _CARRIER_SECONDS
    while not link_setup.carries(fabric, port):
        if time.monotonic() > deadline:
            return  # another fault keeps the port down: nothing passes anyway
        time.sleep(0.005)
    fabric.request(link_setup.blocked_port(port, True))


def _shapers(
    node: NodePlan,
    port: PortPlan,
    inner: int,
    outer: int,
    rate: int | None,
    mtu: int,
    faults: InjectedFaults,
) -> list[bytes]:
    """Return the messages that shape this cable: ``inner`` what the node sends, ``outer`` what it receives."""
    if own := faults.has(node, port, "rate"):
        rate = parse_rate(own)
    sends = faults.has(node, port, "rate-out")
    rates = {inner: parse_rate(sends) if sends else rate, outer: rate}
    return [link_setup.shaper(index, found, mtu) for index, found in rates.items() if found]


def _inside(node: NodePlan, nodes: Sequence[NodePlan], faults: InjectedFaults) -> list[bytes]:
    """Return the messages that configure a node's namespace."""
    messages = [link_setup.up(1)]
    for port in node.ports():
        if faults.has(node, port, "no-interface") is not None:
            continue
        detect = faults.has(node, port, "duplicate-detection") is not None
        addresses = faults.addresses(node, port)
        messages += [link_setup.address(port.index, ip, prefix, detect=detect) for ip, prefix in addresses]
        if faults.has(node, port, "down") is None:
            messages.append(link_setup.up(port.index))
        wrong = faults.has(node, port, "wrong-route")
        if wrong:
            rail = node.backend.index(port)
            messages.append(link_setup.up(node.frontend.index))
            messages.append(
                link_setup.host_route(nodes[int(wrong[5:])].backend[rail].address, node.frontend.index)
            )
    return messages


def _namespaces(
    nodes: Sequence[NodePlan], own: int, faults: InjectedFaults
) -> tuple[list[int], list[Netlink]]:
    """Create network namespaces; return their descriptors, and a netlink socket in each."""
    descriptors, sockets = [], []
    for node in nodes:
        namespaces.unshare(namespaces.NEWNET)
        descriptors.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        # As in a well-configured pod: no stray SLAAC addresses (CVE-2020-10749), addresses that survive a
        # link flap, and no duplicate address detection (it takes 1.8 s), because only torchnet assigns
        # addresses here.
        _sysctl("net/ipv6/conf/default/accept_ra", "0")
        _sysctl("net/ipv6/conf/default/keep_addr_on_down", "1")
        if all(faults.has(node, port, "duplicate-detection") is None for port in node.backend):
            _sysctl("net/ipv6/conf/default/dad_transmits", "0")
        sockets.append(Netlink())
    namespaces.setns(own, namespaces.NEWNET)
    return descriptors, sockets


def _neighbours(nodes: Iterable[NodePlan]) -> list[tuple[int, bytes]]:
    # All nodes have the same interface indexes, so one message serves all of them.
    return [
        (node.rank, link_setup.neighbour(port.index, port.address, port.mac))
        for node in nodes
        for port in node.ports()
    ]


def _sysctl(name: str, value: str) -> None:
    with open(f"/proc/sys/{name}", "w") as file:
        file.write(value)
