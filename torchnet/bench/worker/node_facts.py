"""Facts about a node on which its network figures may depend.

Interfaces are queried in this network namespace: /sys/class/net shows the namespace in which it was mounted.

Source: proc(5); Documentation/admin-guide/cgroup-v2.rst, cpu.max.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import socket
from pathlib import Path

from torchnet import constants
from torchnet.bench.worker.result_messages import Node
from torchnet.errors import NetworkError
from torchnet.linux import cgroup, rtnetlink
from torchnet.linux.link_speed import speed
from torchnet.network import peer_table
from torchnet.network.interface_selection import Interface

SYSCTLS = (
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_timestamps",
)


def facts(node: int, interfaces: list[str]) -> Node:
    """Return what this process can see of its node; ``interfaces`` are the measured networks.

    A missing interface is left out of ``addresses``, ``mtus`` and ``speeds``, an unreadable sysctl out of ``sysctls``.
    ``memory`` is in bytes, limited by the control group; 0 if neither can be read.

    Raises:
        OSError: The kernel does not list the interfaces.
    """
    found = rtnetlink.interfaces()
    name, rails = _table_row(node)
    addresses = {
        one: address
        for one in interfaces
        if one in found and (address := rails.get(one) or _address(found[one]))
    }
    speeds = {one: rate for one in interfaces if one in found and (rate := speed(one))}
    return Node(
        node=node,
        name=name,
        addresses=addresses,
        mtus={one: found[one].mtu for one in interfaces if one in found},
        speeds=speeds,
        sysctls=_sysctls(),
        cores=cores(),
        memory=memory(),
        cpu=_cpu(),
        kernel=platform.release(),
        host=os.environ.get(constants.HOST_VARIABLE, ""),
    )


def _table_row(node: int) -> tuple[str, dict[str, str]]:
    """Return the node's name and its rails' addresses from the job's table; the host's name if there is no table."""
    try:
        rows = peer_table.decode(Path(os.environ.get(constants.TABLE_VARIABLE, "")).read_bytes()).rows
    except (OSError, ValueError, NetworkError):
        rows = ()
    for row in rows:
        if row.node_rank == node:
            return row.name, {rail.interface: rail.address for rail in row.rails}
    return socket.gethostname(), {}


def _address(interface: Interface) -> str:
    """Return the first address that others can reach, preferably a permanent one; "" without such an address."""
    good = [
        one
        for one in interface.addresses
        if one.scope == "global" and not (one.tentative or one.dadfailed or one.deprecated)
    ]
    first = next((one for one in good if one.permanent), good[0] if good else None)
    return str(ipaddress.ip_address(first.ip)) if first else ""


def _sysctls() -> dict[str, str]:
    found = {}
    for name in SYSCTLS:
        try:
            found[name] = " ".join(Path("/proc/sys", *name.split(".")).read_text().split())
        except OSError:  # net.core exists in the initial network namespace only
            continue
    return found


def cores(root: Path = cgroup.ROOT, own: Path = cgroup.OWN) -> float:
    """Return how many cores this process may use, from its affinity and the quotas of its control group and its
    ancestors."""
    least = float(len(os.sched_getaffinity(0)))
    for folder in cgroup.groups(root, own):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            least = min(least, int(quota) / int(period))
        except (OSError, ValueError):  # missing, or "max"
            continue
    return least


def memory(
    root: Path = cgroup.ROOT,
    own: Path = cgroup.OWN,
    info: Path = Path("/proc/meminfo"),
) -> int:
    """Return the bytes that this node's processes may use; 0 if unknown."""
    limits = []
    try:
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines())
        limits.append(int(fields["MemTotal"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError):
        pass
    limits += [group.limit for group in cgroup.memory(root, own)]
    return min(limits, default=0)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
