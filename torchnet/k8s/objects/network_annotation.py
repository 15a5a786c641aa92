"""The rails of a job, and what a pod's annotations say of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from torchnet.config.k8s_values import parse_addresses, parse_attachment
from torchnet.config.model import JobSpec
from torchnet.constants import rail_interface


@dataclass(frozen=True)
class RailAttachment:
    """A backend network of every worker; ``addresses`` by worker with prefix length, () where an IPAM gives them."""

    namespace: str
    name: str
    resource: str = ""
    addresses: tuple[str, ...] = ()


def rails_of(job: JobSpec, namespace: str) -> list[RailAttachment]:
    """The rails in order; an attachment without a namespace is in ``namespace``."""
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
    """The annotation that Multus reads, as JSON; of worker ``index`` where addresses are fixed.

    The interface is always named: by default it depends on the cluster's own networks.
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
    """What the agent of worker ``index`` reads its fixed addresses from: ``static:net1=ADDRESS/LENGTH,…``."""
    pairs = [f"{rail_interface(number)}={rail.addresses[index]}" for number, rail in enumerate(rails)]
    return f"static:{','.join(pairs)}"


def device_resources(rails: list[RailAttachment]) -> dict[str, str]:
    """How many of each device plugin's resource a pod asks for."""
    return {
        name: str(count) for name, count in Counter(rail.resource for rail in rails if rail.resource).items()
    }
