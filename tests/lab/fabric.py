"""The cables between the nodes' kernels: taps and bridges in the namespace ``fabric``, and the control plane's network.

cp      eth0 172.31.0.1   ──┐
node1   eth0 172.31.0.11  ──┼── mgmt
node2   eth0 172.31.0.12  ──┘

one segment:  node1 ens5 ── back ── node2 ens5
routed:       node1 ens5 ── back1 ── router ── back2 ── node2 ens5
"""

from __future__ import annotations

from tests.cluster import network
from tests.cluster.network import ip, wire
from tests.cluster.places import (
    API_ADDRESS,
    CONTROL_PLANE,
    CP_ADDRESS,
    DNS_ADDRESS,
    FABRIC,
    NODES,
    namespace_file,
    node_address,
    pod_range,
)
from tests.cluster.shell import run

ROUTER = "router"
NAMES = (FABRIC, CONTROL_PLANE, ROUTER)
MTU = 9000


def number(node: str) -> int:
    return NODES.index(node) + 1


def tap(node: str, interface: str) -> str:
    """The host's end of a node's interface."""
    return f"{node}-{interface}"


def mac(node: str, interface: str) -> str:
    return f"02:00:00:00:{'0e' if interface == 'eth0' else '05'}:{10 + number(node):02x}"


def router_address(node: str) -> str:
    """The router's address on the node's own segment."""
    return f"fcbb:0:800:{number(node)}::ff"


def make() -> None:
    network.add(NAMES)
    ip(FABRIC, "link add mgmt type bridge", "link set mgmt up")
    for bridge in ("back", "back1", "back2"):
        # No snooping of multicast groups: neighbour discovery must reach ports that have joined none yet.
        ip(FABRIC, f"link add {bridge} mtu {MTU} type bridge mcast_snooping 0", f"link set {bridge} up")
    wire(CONTROL_PLANE, "eth0", "mgmt", 1500)
    ip(CONTROL_PLANE, f"addr add {CP_ADDRESS}/24 dev eth0", f"addr add {API_ADDRESS}/32 dev lo")
    ip(CONTROL_PLANE, f"addr add {DNS_ADDRESS}/32 dev lo")
    for node in NODES:
        ip(CONTROL_PLANE, f"route add {pod_range(node)} via {node_address(node)}")
        for interface, bridge, mtu in (("eth0", "mgmt", 1500), ("ens5", "back", MTU)):
            name = tap(node, interface)
            ip(FABRIC, f"tuntap add {name} mode tap", f"link set {name} mtu {mtu} master {bridge} up")
        side = f"to-{node}"
        wire(ROUTER, side, f"back{number(node)}", MTU)
        ip(ROUTER, f"addr add {router_address(node)}/64 dev {side} nodad")
    inside(ROUTER, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")


def connect(node: str, bridge: str) -> None:
    """Put the node's ens5 into another segment."""
    ip(FABRIC, f"link set {tap(node, 'ens5')} master {bridge}")


def only_known_mac(node: str, *, enabled: bool) -> None:
    """Let the node's port pass frames from and to the node's own MAC address alone, as hypervisors and clouds do."""
    port = tap(node, "ens5")
    on, off = ("on", "off") if enabled else ("off", "on")
    own = f"{mac(node, 'ens5')} dev {port} master static"
    if enabled:
        inside(FABRIC, "bridge", "fdb", "replace", *own.split())
    # Learned addresses would still be let through.
    inside(FABRIC, *f"ip link set dev {port} type bridge_slave fdb_flush".split())
    inside(FABRIC, *f"bridge link set dev {port} learning {off} flood {off} locked {on}".split())


def inside(host: str, *command: str) -> str:
    return run("nsenter", f"--net={namespace_file(host)}", *command)


def remove() -> None:
    """All of it; what is not there is no error."""
    network.remove(NAMES)
