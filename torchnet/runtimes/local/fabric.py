"""Two networks on one machine: a frontend and a backend bridge, and on each node eth0 and a macvlan on an ens5.

    node's namespace:   eth0                 net1 (macvlan)
                          |                    |
    the fabric's:      eth0.N              ens5.N ─ back0.N
                          |                    (veth)  |
                       front (bridge)               back0 (bridge; one for each rail)

The bridges have no address: nodes reach each other through these links and in no other way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torchnet.kernel import build, syscalls
from torchnet.kernel.netlink import Netlink
from torchnet.runtimes.local.plan import GATEWAY, Node

_FRONT = FIRST = 100  # indexes in the fabric: bridges from here on, then the ports in the order of the nodes
_BACK = _FRONT + 1


@dataclass
class Fabric:
    """Built networks: the descriptor of each node's network namespace, in the order of the nodes."""

    namespaces: list[int]

    def close(self) -> None:
        for descriptor in self.namespaces:
            os.close(descriptor)


def build_fabric(nodes: Sequence[Node], *, rate: int | None, mtu: int, internet: bool) -> Fabric:
    """Make the networks in the network namespace that this process is in, and one namespace for each node.

    Args:
        rate: bits per second in each direction of each backend link, or None for as fast as the machine can.
        mtu: of the backend, bytes; the frontend has 1500.
        internet: whether nodes get a default route through eth0.

    Raises:
        OSError: the kernel refused a link, with its own words.
    """
    _sysctl("net/ipv6/conf/all/disable_ipv6", "1")
    _sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with Netlink() as fabric:
        namespaces, sockets = _namespaces(len(nodes), own)
        os.close(own)
        rails = len(nodes[0].backend)
        links = [build.up(1), build.bridge("front", index=_FRONT)]
        links += [build.bridge(f"back{rail}", mtu=mtu, index=_BACK + rail) for rail in range(rails)]
        shapers = []
        index = _BACK + rails
        for node, namespace in zip(nodes, namespaces, strict=True):
            eth0 = node.frontend
            links.append(
                build.veth(eth0.port, "eth0", mtu=1500, master=_FRONT, index=index, peer_namespace=namespace,
                           peer_mac=eth0.mac, peer_index=eth0.index)  # fmt: skip
            )
            index += 1
            for rail, port in enumerate(node.backend):
                inner, outer = index, index + 1
                index += 2
                links.append(build.veth(port.port, port.parent, mtu=mtu, master=_BACK + rail, index=outer,
                                        peer_index=inner))  # fmt: skip
                links.append(build.up(inner))
                links.append(build.macvlan(port.interface, parent=inner, namespace=namespace, mac=port.mac,
                                           index=port.index, mtu=mtu))  # fmt: skip
                if rate:
                    shapers += [build.shaper(inner, rate, mtu), build.shaper(outer, rate, mtu)]
        fabric.batch(links)
        fabric.batch(shapers)
        gateway = [build.default_route(GATEWAY)] if internet else []
        neighbours = _neighbours(nodes)
        for node, netlink in zip(nodes, sockets, strict=True):
            ports = list(node.ports())
            netlink.batch(
                [build.up(1)]
                + [build.address(port.index, port.address, port.prefix) for port in ports]
                + [build.up(port.index) for port in ports]
                + gateway
                + [message for rank, message in neighbours if rank != node.rank]
            )
            netlink.close()
    return Fabric(namespaces)


def _namespaces(count: int, own: int) -> tuple[list[int], list[Netlink]]:
    """New network namespaces as descriptors, and a netlink socket inside of each."""
    namespaces, sockets = [], []
    for _ in range(count):
        syscalls.unshare(syscalls.NEWNET)
        namespaces.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        # As a pod should have it: no stray SLAAC addresses (CVE-2020-10749), addresses that survive a flap, and no
        # duplicate address detection for addresses that only we give out (it takes 1.8 s).
        _sysctl("net/ipv6/conf/default/accept_ra", "0")
        _sysctl("net/ipv6/conf/default/keep_addr_on_down", "1")
        _sysctl("net/ipv6/conf/default/dad_transmits", "0")
        sockets.append(Netlink())
    syscalls.setns(own, syscalls.NEWNET)
    return namespaces, sockets


def _neighbours(nodes: Iterable[Node]) -> list[tuple[int, bytes]]:
    # Every node has the same interface indexes, so that one message serves all of them.
    return [
        (node.rank, build.neighbour(port.index, port.address, port.mac)) for node in nodes for port in node.ports()
    ]


def _sysctl(name: str, value: str) -> None:
    with open(f"/proc/sys/{name}", "w") as file:
        file.write(value)
