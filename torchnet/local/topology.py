"""The plan of the local networks: each node's names, addresses and MACs, and its network-status (pure)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from torchnet import constants
from torchnet.config.fault_syntax import Fault
from torchnet.network import attachment, network_status

FIRST_INDEX = 10  # above the tunnel devices of loaded modules, which a new network namespace may have
GATEWAY, DNS = "172.30.0.2", "172.30.0.3"  # slirp4netns's: the second and third address
FRONTEND_PREFIX = 16
TAP = "internet"  # the name of slirp4netns's device
_RAILS4 = tuple(ipaddress.IPv4Network(constants.LOCAL_BACKEND4).subnets(3))


@dataclass(frozen=True)
class SandboxShape:
    """Parameters of the networks.

    Attributes:
        rate: bits per second of a backend link in each direction; None: unlimited.
        mtu: of the backend, in bytes.
        internet: whether nodes have a default route.
        faults: injected faults.
    """

    rate: int | None = None
    mtu: int = 9000
    internet: bool = False
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class PortPlan:
    """One interface of a node, and its links in the fabric.

    ``port`` is its bridge port; ``parent`` is the ens5 below net1 ("" for eth0).
    """

    interface: str
    index: int
    address: str
    prefix: int
    mac: str
    port: str
    parent: str


@dataclass(frozen=True)
class NodePlan:
    rank: int
    name: str
    frontend: PortPlan
    backend: tuple[PortPlan, ...]

    def ports(self) -> Iterator[PortPlan]:
        yield self.frontend
        yield from self.backend


def node(rank: int, rails: int, *, ipv4: bool = False) -> NodePlan:
    """Return the plan of node ``rank`` with eth0 and net1 to net``rails``; unique for ranks up to 9,999.

    Args:
        ipv4: whether backend addresses are IPv4, for scripts that build a URL from MASTER_ADDR without
            brackets.
    """
    high, low = rank >> 8, rank & 255
    eth0 = PortPlan(
        interface="eth0",
        index=FIRST_INDEX,
        address=f"172.30.{1 + rank // 250}.{1 + rank % 250}",
        prefix=FRONTEND_PREFIX,
        mac=f"02:e0:00:00:{high:02x}:{low:02x}",
        port=f"eth0.{rank}",
        parent="",
    )
    backend = tuple(
        PortPlan(
            interface=constants.rail_interface(rail),
            index=FIRST_INDEX + 1 + rail,
            address=str(_RAILS4[rail][rank + 1])
            if ipv4
            else f"{constants.LOCAL_PREFIXES[rail]}::{rank + 1:x}",
            prefix=_RAILS4[rail].prefixlen if ipv4 else 64,
            mac=f"02:fc:bb:{rail:02x}:{high:02x}:{low:02x}",
            port=f"back{rail}.{rank}",
            parent=f"ens{5 + rail}.{rank}",
        )
        for rail in range(rails)
    )
    return NodePlan(rank, f"node-{rank}", eth0, backend)


def network_status_annotation(node: NodePlan) -> str:
    """Return the annotation that Multus writes for such a pod (the Multi-Network specification, v1.3)."""
    primary = network_status.StatusEntry(
        name=constants.LOCAL_PRIMARY,
        interface="eth0",
        ips=(node.frontend.address,),
        mac=node.frontend.mac,
        mtu=None,
        default=True,
        gateway=("<nil>",),
    )
    backend = tuple(
        network_status.StatusEntry(
            name=attachment.LOCAL[rail].path,
            interface=port.interface,
            ips=(port.address,),
            mac=port.mac,
            mtu=None,
            default=False,
            gateway=(),
        )
        for rail, port in enumerate(node.backend)
    )
    return network_status.render((primary, *backend))


def hosts(node: NodePlan) -> str:
    """Return the node's /etc/hosts; its own name resolves to eth0, as the kubelet writes it for a pod."""
    return (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        f"{node.frontend.address}\t{node.name}\n"
    )
