"""The rails of a job, and how pods request them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from torchnet.config.job_spec import JobSpec
from torchnet.config.k8s_values import parse_addresses, parse_attachment
from torchnet.constants import rail_interface


@dataclass(frozen=True)
class RailAttachment:
    """A backend network that every worker is attached to.

    ``addresses`` has one address with prefix length per worker; () if an IPAM plugin assigns them.
    """

    namespace: str
    name: str
    resource: str = ""
    addresses: tuple[str, ...] = ()


def rails_of(job: JobSpec, namespace: str) -> list[RailAttachment]:
    """Return the rails in order; an attachment without a namespace is in ``namespace``."""
    asked = [parse_attachment(text) for text in job.network.networks]
    rails = [
        RailAttachment(one.namespace or namespace, one.name, one.resource)
        for one in asked
        for _ in range(one.count)
    ]
    fixed = job.kubernetes.static_ips
    if not fixed:
        return rails
    return [
        RailAttachment(rail.namespace, rail.name, rail.resource, parse_addresses(text, job.nnodes))
        for rail, text in zip(rails, fixed, strict=True)
    ]


def networks(rails: list[RailAttachment], index: int | None = None) -> str:
    """Return the annotation that Multus reads, as JSON; with fixed addresses, those of worker ``index``.

    The interface is always named: its default name depends on the cluster's own networks.
    """
    entries = []
    for number, rail in enumerate(rails):
        entry: dict[str, object] = {
            "name": rail.name,
            "namespace": rail.namespace,
            "interface": rail_interface(number),
        }
        if index is not None and rail.addresses:
            entry["ips"] = [rail.addresses[index]]
        entries.append(entry)
    return json.dumps(entries)


def source(rails: list[RailAttachment], index: int) -> str:
    """Return the agent's address source for worker ``index`` with fixed addresses: ``static:net1=ADDRESS/LENGTH,…``."""
    pairs = [f"{rail_interface(number)}={rail.addresses[index]}" for number, rail in enumerate(rails)]
    return f"static:{','.join(pairs)}"


def device_resources(rails: list[RailAttachment]) -> dict[str, str]:
    """Return the count of each device plugin resource that a pod requests."""
    return {
        name: str(count) for name, count in Counter(rail.resource for rail in rails if rail.resource).items()
    }
