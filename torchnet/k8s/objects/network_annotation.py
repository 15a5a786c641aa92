"""How pods request their attachments: annotations, fixed addresses and device resources."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from torchnet.config.job_spec import JobSpec
from torchnet.config.k8s_values import parse_addresses
from torchnet.network.attachment import NetworkAttachment


def fixed_addresses(job: JobSpec) -> list[tuple[str, ...]]:
    """Return each worker's addresses with prefix length, one per rail; [] if an IPAM plugin assigns them."""
    by_rail = [parse_addresses(text, job.nnodes) for text in job.kubernetes.static_ips]
    return list(zip(*by_rail, strict=True))


def networks(attachments: Sequence[NetworkAttachment], addresses: Sequence[str] = ()) -> str:
    """Return the annotation that Multus reads, as JSON; ``addresses`` are the worker's, by rail.

    The interface is always named: its default name depends on the cluster's own networks.
    """
    entries: list[dict[str, object]] = [
        {"name": one.name, "namespace": one.namespace, "interface": one.interface} for one in attachments
    ]
    for entry, address in zip(entries, addresses, strict=bool(addresses)):
        entry["ips"] = [address]
    return json.dumps(entries)


def source(attachments: Sequence[NetworkAttachment], addresses: Sequence[str]) -> str:
    """Return the agent's address source for a worker with fixed addresses: ``static:net1=ADDRESS/LENGTH,…``."""
    pairs = [f"{one.interface}={address}" for one, address in zip(attachments, addresses, strict=True)]
    return f"static:{','.join(pairs)}"


def device_resources(attachments: Sequence[NetworkAttachment]) -> dict[str, str]:
    """Return the count of each device plugin resource that a pod requests."""
    return {name: str(count) for name, count in Counter(one.resource for one in attachments).items() if name}
