"""The pools of Whereabouts: which addresses are allocated, and to which pods (pure).

Source:
    whereabouts v0.9.4, pkg/storage/kubernetes/ipam.go (IPPoolName, toIPReservationList)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.k8s.addons.ip_ranges import Address, Network, within
from torchnet.k8s.attachments.address_range import AddressRange, address_ranges, has_node_slices, interface
from torchnet.k8s.attachments.cni_config import CniConfig, text_of

Object = dict[str, Any]
_LONGEST_OFFSET = 19  # digits of a signed 64-bit number


@dataclass(frozen=True)
class Lease:
    """An allocated address.

    Attributes:
        pod: NAMESPACE/NAME; "" if unknown.
        interface: "" if unknown.
        key: The allocation's name in the pool.
        container: The sandbox that has the address. A pod of the same name gets the same allocation, with another one.
    """

    address: Address
    pod: str
    interface: str
    key: str
    pool: str
    pool_namespace: str
    container: str = ""


@dataclass(frozen=True)
class Pool:
    """An IPPool: the allocations of one range, or with node slices of one node's part of it."""

    namespace: str
    name: str
    network: Network
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
        offset = _offset(key)
        if offset is None or offset >= network.num_addresses or not isinstance(taken, dict):
            continue
        pod, interface_name = text_of(taken, "podref"), text_of(taken, "ifname")
        found = network.network_address + offset
        leases.append(Lease(found, pod, interface_name, key, name, namespace, text_of(taken, "id")))
    return Pool(namespace, name, network, tuple(sorted(leases, key=lambda one: int(one.address))))


def _offset(key: str) -> int | None:
    """Return the number that Whereabouts reads from an allocation's name; None if it ignores it."""
    if not key.isascii() or not key.isdigit() or len(key) > _LONGEST_OFFSET:
        return None
    return int(key) if int(key) < 1 << 63 else None


def pool_name(found: AddressRange, network_name: str = "") -> str:
    """Return the name of the IPPool of a range."""
    name = _normalized(found.network)
    return f"{network_name}-{name}" if network_name else name


def _normalized(network: Network) -> str:
    return str(network).replace(":", "-").replace("/", "-")


@dataclass(frozen=True)
class RangeUse:
    """How much of one range of an attachment is used.

    Attributes:
        leases: The allocations in the range, also those of other attachments that share the pool.
        slice_length: The prefix length of each node's part; None if the nodes share the range.
    """

    range: AddressRange
    leases: tuple[Lease, ...]
    slice_length: int | None = None

    @property
    def capacity(self) -> int:
        """How many addresses can be allocated; with node slices, by all nodes that the range has parts for."""
        network, length = self.range.network, self.slice_length
        if length is None or not network.prefixlen <= length <= network.max_prefixlen:
            return self.range.capacity
        return (1 << length - network.prefixlen) * max(0, (1 << network.max_prefixlen - length) - 2)

    @property
    def free(self) -> int:
        """How many addresses can still be allocated; with node slices, an upper limit."""
        return max(0, self.capacity - sum(one.address in self.range for one in self.leases))


def range_uses(config: CniConfig, pools: Sequence[Pool]) -> tuple[RangeUse, ...]:
    """Return the use of each range from which Whereabouts allocates for an attachment."""
    if config.ipam_type != "whereabouts":
        return ()
    network_name = text_of(config.ipam, "network_name")
    length = slice_length(config)
    uses = []
    for one in address_ranges(config):
        name = pool_name(one, network_name)
        leases = tuple(
            lease
            for pool in pools
            if (pool.name == name if length is None else _is_slice(pool, one, network_name))
            for lease in pool.leases
        )
        uses.append(RangeUse(one, leases, length))
    return tuple(uses)


def slice_length(config: CniConfig) -> int | None:
    """Return the prefix length of each node's part of the range; None if the nodes share it."""
    if not has_node_slices(config.ipam):
        return None
    digits = text_of(config.ipam, "node_slice_size").removeprefix("/")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_OFFSET else 0


def _is_slice(pool: Pool, found: AddressRange, network_name: str) -> bool:
    """Whether a pool is one node's part of a range; its name is [NETWORK_NAME-]NODE-RANGE."""
    suffix = f"-{_normalized(pool.network)}"
    prefix = f"{network_name}-" if network_name else ""
    is_own = (
        pool.name.startswith(prefix) and pool.name.endswith(suffix) and len(pool.name) > len(prefix + suffix)
    )
    return is_own and within(pool.network, found.network)
