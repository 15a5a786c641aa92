"""The addresses of one attachment on a cluster: ``torchnet network show``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from torchnet.k8s.addons.ip_ranges import Address
from torchnet.k8s.attachments.address_pool import range_uses
from torchnet.k8s.attachments.address_range import AddressRange, address_ranges
from torchnet.k8s.attachments.address_table import AddressTable, address_table
from torchnet.k8s.attachments.cluster_state import ClusterState
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.client.api_client import ApiClient


@dataclass(frozen=True)
class Part:
    """A range of host-local, which one node allocates from.

    Attributes:
        node: "" if each node has the same range.
        held: How many addresses of it pods have, as far as their network-status is known.
    """

    node: str
    range: AddressRange
    held: int

    @property
    def free(self) -> int:
        """How many addresses are left."""
        return max(0, self.range.capacity - self.held)


@dataclass(frozen=True)
class AddressListing:
    """The addresses of an attachment.

    Attributes:
        parts: The ranges of host-local; () for other IPAM plugins.
        skipped: A line for each thing that this user may not read.
    """

    definition: Definition
    table: AddressTable
    skipped: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


def list_addresses(client: ApiClient, namespace: str, name: str) -> AddressListing:
    """Read who has which address of an attachment.

    Raises:
        ApiRefusal: The attachment does not exist, or may not be read.
        ClusterError: The cluster cannot be reached.
    """
    state = ClusterState(client)
    definition = state.definition(namespace, name)
    config = definition.parsed
    uses_pools = config is not None and config.ipam_type == "whereabouts"
    pools = state.pools() if uses_pools else []
    uses = range_uses(config, pools) if config is not None and pools is not None else ()
    holders = {lease.pod.partition("/")[0] for use in uses for lease in use.leases if lease.pod}
    pods = state.pods({namespace, *holders})
    if not pods.everywhere:
        state.skipped.append(
            "pods of other namespaces are not shown: not allowed to list pods in all namespaces"
        )
    table = address_table(definition.path, uses, pods)
    return AddressListing(definition, table, tuple(state.skipped), tuple(_parts(definition, table)))


def _parts(definition: Definition, table: AddressTable) -> Iterator[Part]:
    configs = definition.parsed_by_node or ({"": definition.parsed} if definition.parsed is not None else {})
    held: dict[str, set[Address]] = defaultdict(set)
    for row in table.rows:
        held[row.node].add(row.address)
    for node, config in configs.items():
        for one in address_ranges(config) if config.ipam_type == "host-local" else ():
            yield Part(node, one, sum(address in one for address in held[node]))
