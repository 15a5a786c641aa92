"""Pods for the cluster's own tests: one container that stays, attached to the backend network."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.shell import wait_until
from tests.cluster.versions import WORKER_IMAGE
from torchnet.constants import NETWORKS_ANNOTATION, STATUS_ANNOTATION

RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

# Lets `ping` do without CAP_NET_RAW; Pod Security allows it.
PING = {"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}


def staying(
    name: str, node: str, namespace: str, *, restricted: bool = True, network: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A pod on ``node`` that sleeps, with net1 from an attachment in its namespace.

    ``network`` is what its annotation says beside or instead of the usual.
    """
    attached = {"name": "backend-network", "namespace": namespace, "interface": "net1"} | (network or {})
    container: dict[str, Any] = {"name": "c", "image": WORKER_IMAGE, "command": ["sleep", "3600"]}
    user: dict[str, Any] = {}
    if restricted:
        container["securityContext"] = RESTRICTED
        profile = {"type": "RuntimeDefault"}
        context = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": profile, "sysctls": [PING]}
        user = {"securityContext": context}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {NETWORKS_ANNOTATION: json.dumps([attached])}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [container],
            **user,
        },
    }


def wait_for_address(cluster: Cluster, namespace: str, pod: str) -> None:
    """Until net1's address can be used: a fresh one is tentative for some 2 s, and answers nobody."""
    tentative = ("exec", pod, "--", "ip", "-6", "address", "show", "dev", "net1", "tentative")
    wait_until(f"{pod}'s address", 30, lambda: not cluster.kubectl("-n", namespace, *tentative))


def status(pod: dict[str, Any], network: str) -> dict[str, Any]:
    """The pod's network-status entry of one attachment."""
    entries = json.loads(pod["metadata"]["annotations"][STATUS_ANNOTATION])
    (entry,) = [entry for entry in entries if entry["name"] == network]
    found: dict[str, Any] = entry
    return found
