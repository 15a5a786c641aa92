"""The other attachments that `torchnet manifests backend-network` prints, each with a pod on both nodes."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from tests.cluster import addons
from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.cluster.pods import status, staying, wait_for_address

NAME = "other"
STATIC = {"node1": "fcbb:0:800:ffff:8000::51/64", "node2": "fcbb:0:800:ffff:8000::52/64"}
SLICES = {"node1": "fcbb:0:800:ffff:1::/80", "node2": "fcbb:0:800:ffff:2::/80"}
LOG = "/var/log/whereabouts-test.log"


def addresses(launcher: Launcher, *words: str, ips: dict[str, str] | None = None) -> dict[str, str]:
    """net1's address on each node with the attachment of these ``words``; the nodes have reached each other."""
    cluster, namespace = launcher.cluster, launcher.namespace
    applied = addons.attachment(namespace, "--name", NAME, *words)
    cluster.kubectl("apply", "-f", "-", input=applied)
    pods = []
    for node in cluster.nodes:
        network: dict[str, Any] = {"name": NAME} | ({"ips": [ips[node]]} if ips else {})
        pods.append(staying(f"on-{node}", node, namespace, network=network))
    inside = ("-n", namespace)
    try:
        if "DaemonSet" in applied:
            status_of = ("rollout", "status", f"daemonset/{NAME}-slices", "--timeout=90s")
            cluster.kubectl("-n", "kube-system", *status_of)
        cluster.kubectl(
            *inside, "apply", "-f", "-", input=json.dumps({"kind": "List", "apiVersion": "v1", "items": pods})
        )
        cluster.kubectl(*inside, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
        found = {}
        for node in cluster.nodes:
            wait_for_address(cluster, namespace, f"on-{node}")
            body = json.loads(cluster.kubectl(*inside, "get", "pod", f"on-{node}", "-o", "json"))
            (found[node],) = status(body, f"{namespace}/{NAME}")["ips"]
        for node, other in (cluster.nodes, cluster.nodes[::-1]):
            ping = ("ping", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", "8000", found[other])
            assert " 0% packet loss" in cluster.kubectl(*inside, "exec", f"on-{node}", "--", *ping)
        return found
    finally:
        cluster.kubectl(*inside, "delete", "pods", "--all")
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", input=applied)


@concurrent
def test_fixed_addresses(launcher: Launcher) -> None:
    found = addresses(launcher, "--ipam", "static", ips=STATIC)
    assert found == {node: address.partition("/")[0] for node, address in STATIC.items()}


@concurrent
def test_a_part_of_the_range_for_each_node(launcher: Launcher) -> None:
    words = [word for node, part in SLICES.items() for word in ("--slice", f"{node}={part}")]
    found = addresses(launcher, *words)
    for node, part in SLICES.items():
        assert ipaddress.IPv6Address(found[node]) in ipaddress.IPv6Network(part)


@concurrent
def test_what_is_excluded_is_not_given(launcher: Launcher) -> None:
    found = addresses(launcher, "--exclude", "fcbb:0:800:ffff::/120", "--log-file", LOG)
    for node, address in found.items():
        assert ipaddress.IPv6Address(address) not in ipaddress.IPv6Network("fcbb:0:800:ffff::/120")
        # The plugin itself tells what it did only there.
        assert address in launcher.cluster.on_node(node, "cat", LOG)
