"""Test pods of ``torchnet verify`` and what they report, made up."""

from __future__ import annotations

import json
from typing import Any

from torchnet.k8s.verify.pods import PodOptions
from torchnet.network.attachment import NetworkAttachment

NETWORK = NetworkAttachment("ml", "backend-network", "net1")
OPTIONS = PodOptions([NETWORK], "x:1")


def network_status(*addresses: str) -> str:
    """The annotation of a pod with one address on each rail."""
    entries: list[dict[str, Any]] = [
        {"name": "cbr0", "interface": "eth0", "ips": ["10.0.0.5"], "default": True}
    ]
    for number, address in enumerate(addresses, start=1):
        entries.append({"name": "ml/backend-network", "interface": f"net{number}", "ips": [address]})
    return json.dumps(entries)


def body(index: int, node: str, *addresses: str) -> dict[str, Any]:
    """The pod, as the API server has it."""
    status = network_status(*(addresses or (f"fd00::{index + 1}",)))
    meta = {"name": f"verify-{index}", "annotations": {"k8s.v1.cni.cncf.io/network-status": status}}
    return {"metadata": meta, "spec": {"nodeName": node}}


def state(index: int, **more: Any) -> dict[str, Any]:
    """The line that it prints once it serves."""
    rails = {"net1": {"addresses": [f"fd00::{index + 1}"], "mtu": 9000}}
    return {"interfaces": ["eth0", "lo", "net1"], "rails": rails} | more


def result(partner: str = "verify-0", **more: Any) -> dict[str, Any]:
    """What it says of the path to a partner."""
    return {"partner": partner, "rail": "net1", "reached": True, "size": 9000, "problem": ""} | more
