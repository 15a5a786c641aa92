"""The pools of Whereabouts: which addresses are allocated, and to which pods (pure).

Source:
    whereabouts v0.9.4, pkg/storage/kubernetes/ipam.go (IPPoolName, toIPReservationList)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.k8s.addons.ip_ranges import Address, within
from torchnet.k8s.attachments.address_range import AddressRange, address_ranges, interface
from torchnet.k8s.attachments.cni_config import CniConfig, text_of

Object = dict[str, Any]


@dataclass(frozen=True)
class Lease:
    """An allocated address.

    Attributes:
        pod: NAMESPACE/NAME; "" if unknown.
        interface: "" if unknown.
        key: The allocation's name in the pool.
    """

    address: Address
    pod: str
    interface: str
    key: str
    pool: str
    pool_namespace: str


@dataclass(frozen=True)
class Pool:
    """An IPPool: the allocations of one range, or with node slices of one node's part of it."""

    namespace: str
    name: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    leases: tuple[Lease, ...]


def read_pool(body: Object) -> Pool | None:
    """Return the pool that an object describes; None if it has no valid range."""
    meta, spec = body.get("metadata") or {}, body.get("spec") or {}
    try:
        network = interface(spec.get("range"), sloppy=True).network
    except ValueError:
        return None
    namespace, name = str(meta.get("namespace") or ""), str(meta.get("name") or "")
    leases = []
    allocations = spec.get("allocations")
    for key, taken in (allocations if isinstance(allocations, dict) else {}).items():
        # Whereabouts ignores other keys, too.
        if (
            not key.isascii()
            or not key.isdigit()
            or int(key) >= network.num_addresses
            or not isinstance(taken, dict)
        ):
            continue
        found = network.network_address + int(key)
        leases.append(Lease(found, text_of(taken, "podref"), text_of(taken, "ifname"), key, name, namespace))
    return Pool(namespace, name, network, tuple(sorted(leases, key=lambda one: int(one.address))))


def pool_name(found: AddressRange, network_name: str = "") -> str:
    """Return the name of the IPPool of a range."""
    name = str(found.network).replace(":", "-").replace("/", "-")
    return f"{network_name}-{name}" if network_name else name


@dataclass(frozen=True)
class RangeUse:
    """How much of one range of an attachment is used.

    Attributes:
        leases: The allocations in the range, also those of other attachments that share the pool.
    """

    range: AddressRange
    leases: tuple[Lease, ...]

    @property
    def free(self) -> int:
        """How many addresses can still be allocated."""
        return max(0, self.range.capacity - sum(one.address in self.range for one in self.leases))


def range_uses(config: CniConfig, pools: Sequence[Pool]) -> tuple[RangeUse, ...]:
    """Return the use of each range from which Whereabouts allocates for an attachment."""
    if config.ipam_type != "whereabouts":
        return ()
    network_name = text_of(config.ipam, "network_name")
    sliced = bool(config.ipam.get("node_slice_size"))
    uses = []
    for one in address_ranges(config):
        name = pool_name(one, network_name)
        leases = tuple(
            lease
            for pool in pools
            if (within(pool.network, one.network) if sliced else pool.name == name)
            for lease in pool.leases
        )
        uses.append(RangeUse(one, leases))
    return tuple(uses)
