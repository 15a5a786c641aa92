"""The addresses of one attachment on a cluster: ``torchnet network show``."""

from __future__ import annotations

from dataclasses import dataclass

from torchnet.k8s.attachments.address_pool import range_uses
from torchnet.k8s.attachments.address_table import AddressTable, address_table
from torchnet.k8s.attachments.cluster_state import ClusterState
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.client.api_client import ApiClient


@dataclass(frozen=True)
class AddressListing:
    """The addresses of an attachment.

    Attributes:
        skipped: A line for each thing that this user may not read.
    """

    definition: Definition
    table: AddressTable
    skipped: tuple[str, ...] = ()


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
    return AddressListing(definition, address_table(definition.path, uses, pods), tuple(state.skipped))
