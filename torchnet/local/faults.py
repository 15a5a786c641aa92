"""Faults in the local networks (``--fault``), to see every refusal before a cluster causes it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace

from torchnet.config.fault_syntax import Fault
from torchnet.linux import link_setup
from torchnet.linux.netlink import Netlink
from torchnet.local.topology import NodePlan, PortPlan


class InjectedFaults:
    """The faults of one job: those built into its networks, and those that begin while it runs."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.faults = tuple(faults)

    def has(self, node: NodePlan, port: PortPlan, kind: str) -> str | None:
        """Return the value ("" if it has none) of a fault of this kind that exists from the start, or None."""
        for fault in self.faults:
            if (fault.node, fault.interface, fault.kind) == (
                node.rank,
                port.interface,
                kind,
            ) and fault.at is None:
                return fault.value
        return None

    def addresses(self, node: NodePlan, port: PortPlan) -> list[tuple[str, int]]:
        """Return the interface's addresses and prefix lengths, faults included."""
        if self.has(node, port, "no-address") is not None:
            return []
        added = [
            _split(fault.value, port.prefix)
            for fault in self.faults
            if (fault.node, fault.interface, fault.kind) == (node.rank, port.interface, "add-address")
        ]
        return [(port.address, port.prefix), *added]

    def with_addresses(self, nodes: Sequence[NodePlan]) -> list[NodePlan]:
        """Return the nodes with the addresses that faults give them; their network-status will match."""
        return [
            replace(
                node,
                frontend=self._with_address(node, node.frontend),
                backend=tuple(self._with_address(node, port) for port in node.backend),
            )
            for node in nodes
        ]

    def _with_address(self, node: NodePlan, port: PortPlan) -> PortPlan:
        text = self.has(node, port, "address")
        if not text:
            return port
        ip, prefix = _split(text, port.prefix)
        return replace(port, address=ip, prefix=prefix)

    def timed(self) -> list[tuple[float, Fault, bool]]:
        """Return (seconds after the start, fault, whether it begins), in order."""
        steps = [(fault.at, fault, True) for fault in self.faults if fault.at is not None]
        steps += [(f.at + f.last, f, False) for f in self.faults if f.at is not None and f.last is not None]
        return sorted(steps, key=lambda step: step[0])


def apply_timed_fault(
    fault: Fault, begins: bool, node: NodePlan, inside: Netlink, fabric: Netlink, mtu: int
) -> None:
    """Begin or end a timed fault.

    Args:
        begins: whether the fault begins.
        inside: a socket in the node's namespace.
        fabric: a socket in the namespace of the bridges.
        mtu: of the backend, in bytes; restored when the fault ends.
    """
    port = next(port for port in node.ports() if port.interface == fault.interface)
    if fault.kind == "down":
        inside.request(link_setup.down(port.index) if begins else link_setup.up(port.index))
    elif fault.kind == "mtu":
        inside.request(link_setup.set_mtu(port.index, int(fault.value) if begins else mtu))
    elif fault.kind == "no-address":
        change = link_setup.no_address if begins else link_setup.address
        inside.request(change(port.index, port.address, port.prefix))
    else:
        outer = link_setup.index_of(fabric, port.port)
        if fault.kind == "lossy":
            fabric.request(link_setup.blocked_port(outer, begins))
        else:
            # Setting the far end of the veth down removes the carrier from ens5, and so from the macvlan on it.
            fabric.request(link_setup.down(outer) if begins else link_setup.up(outer))


def _split(text: str, prefix: int) -> tuple[str, int]:
    address = ipaddress.ip_interface(text)
    given = "/" in text
    return str(address.ip), address.network.prefixlen if given else (prefix if address.version == 6 else 24)
