"""The hosts and their cables: network namespaces for the control plane, each node, and the two switches.

    cp      eth0 172.31.0.1   ──┐
    node1   eth0 172.31.0.11  ──┼── mgmt, a bridge in the namespace `fabric`
    node2   eth0 172.31.0.12  ──┘
    node1   ens5  ──┐
    node2   ens5  ──┴── back, a bridge in `fabric`, MTU 9000

Their names begin with `torchnet-`. The machine's own namespace gets no interface and no route.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from tests.cluster.places import (
    API_ADDRESS,
    CONTROL_PLANE,
    CP_ADDRESS,
    DNS_ADDRESS,
    FABRIC,
    NETNS,
    NODES,
    RUN,
    SERVICES,
    namespace,
    namespace_file,
    node_address,
    pod_range,
)
from tests.cluster.shell import run

NAMES = (FABRIC, CONTROL_PLANE, *NODES)
BACKEND_MTU = 9000
# Between the pods of a node the bridge of the primary network must not consult iptables.
SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/bridge/bridge-nf-call-iptables": 0,
    "net/bridge/bridge-nf-call-ip6tables": 0,
}


def cable(node: str, interface: str) -> str:
    """The other end, in the namespace `fabric`, of a host's interface."""
    return f"{node}-{interface}"


def make() -> None:
    """All namespaces, links, addresses and routes."""
    add(NAMES)
    ip(FABRIC, "link add mgmt type bridge", "link set mgmt up")
    ip(FABRIC, f"link add back mtu {BACKEND_MTU} type bridge", "link set back up")
    wire(CONTROL_PLANE, "eth0", "mgmt", 1500)
    ip(CONTROL_PLANE, f"addr add {CP_ADDRESS}/24 dev eth0", f"addr add {API_ADDRESS}/32 dev lo")
    ip(CONTROL_PLANE, f"addr add {DNS_ADDRESS}/32 dev lo")
    for node in NODES:
        wire(node, "eth0", "mgmt", 1500)
        wire(node, "ens5", "back", BACKEND_MTU)
        # No proxy for services: the API server's and the name server's are addresses of `cp`.
        ip(node, f"addr add {node_address(node)}/24 dev eth0", f"route add default via {CP_ADDRESS}")
        ip(node, f"route add {SERVICES} via {CP_ADDRESS}")
        script = "; ".join(
            f"[ ! -e /proc/sys/{name} ] || echo {value} >/proc/sys/{name}" for name, value in SYSCTLS.items()
        )
        run("nsenter", f"--net={namespace_file(node)}", "sh", "-ec", script)
    for node in NODES:
        for name in (CONTROL_PLANE, *NODES):
            if name != node:
                ip(name, f"route add {pod_range(node)} via {node_address(node)}")


def add(names: Iterable[str]) -> None:
    """Namespaces of these hosts, with nothing but loopback."""
    if not NETNS.is_dir():
        (RUN / "made-netns").touch()  # `ip netns` will make it, and leave it as a mount
    for name in names:
        run("ip", "netns", "add", namespace(name))
        ip(name, "link set lo up")


def remove(names: Iterable[str] = NAMES) -> None:
    """All of it; what is not there is no error."""
    for name in names:
        if namespace_file(name).exists():
            run("ip", "netns", "delete", namespace(name))
    if (RUN / "made-netns").exists() and not os.listdir(NETNS):
        run("umount", NETNS)
        NETNS.rmdir()


def in_the_way(names: Iterable[str] = NAMES) -> list[str]:
    """Namespaces of these names that are there already."""
    return [namespace(name) for name in names if namespace_file(name).exists()]


def set_cable(node: str, *, connected: bool, interface: str = "ens5") -> None:
    """Pull a node's cable, or put it back in: the node's own end loses its carrier, its address stays."""
    ip(FABRIC, f"link set {cable(node, interface)} {'up' if connected else 'down'}")


def wire(host: str, interface: str, bridge: str, mtu: int) -> None:
    """Give a host an interface, whose other end is a port of a switch."""
    port = cable(host, interface)
    options = f"mtu {mtu} netns {namespace(FABRIC)} type veth peer name {interface} mtu {mtu}"
    run("ip", "link", "add", port, *options.split(), "netns", namespace(host))
    ip(FABRIC, f"link set {port} master {bridge} up")
    ip(host, f"link set {interface} up")


def ip(host: str, *lines: str) -> None:
    """Commands of `ip` on a host, each a line."""
    run("ip", "-n", namespace(host), "-batch", "-", input="\n".join(lines) + "\n")
