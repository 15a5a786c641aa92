"""The other attachments that `torchnet manifests backend-network` prints, each with a pod on both nodes."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster import addons
from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.cluster.pods import status, staying, wait_for_address
from tests.cluster.shell import ClusterFailure
from torchnet.k8s.attachments.plugin_rules import VERSIONS

NAME = "other"
STATIC = {"node1": "fcbb:0:800:ffff:8000::51/64", "node2": "fcbb:0:800:ffff:8000::52/64"}
SLICES = {"node1": "fcbb:0:800:ffff:1::/80", "node2": "fcbb:0:800:ffff:2::/80"}
OWN_RANGE, EXCLUDED = "fcbb:0:803::/64", "fcbb:0:803::/120"  # its pool has no other test's leases
LOG = "/var/log/whereabouts-test.log"


def addresses(
    launcher: Launcher,
    *words: str,
    ips: dict[str, str] | None = None,
    version: str = "1.0.0",
    meanwhile: Callable[[Launcher], None] = lambda _: None,
) -> dict[str, str]:
    """net1's address on each node with the attachment of these ``words``; the nodes have reached each other.

    ``version`` is the attachment's cniVersion; ``meanwhile`` is called while the pods are there.
    """
    cluster, namespace = launcher.cluster, launcher.namespace
    applied = addons.attachment(namespace, "--name", NAME, *words)
    assert '"cniVersion": "1.0.0"' in applied
    applied = applied.replace('"cniVersion": "1.0.0"', f'"cniVersion": "{version}"')
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
        check_with_torchnet(launcher, found)
        meanwhile(launcher)
        for node, other in (cluster.nodes, cluster.nodes[::-1]):
            ping = ("ping", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", "8000", found[other])
            assert " 0% packet loss" in cluster.kubectl(*inside, "exec", f"on-{node}", "--", *ping)
        return found
    finally:
        cluster.kubectl(*inside, "delete", "pods", "--all")
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", input=applied)


def check_with_torchnet(launcher: Launcher, found: dict[str, str]) -> None:
    """The rules have nothing against what works, apart from other tests' ranges; and show knows who has what."""
    linted = launcher.run("network", "lint", "-n", launcher.namespace, "-o", "json")
    findings = json.loads(linted.out)["findings"]
    faults = [one for one in findings if one["level"] == "fault" and " overlaps " not in one["fault"]]
    assert faults == [], linted.out
    shown = json.loads(launcher.run("network", "show", f"{launcher.namespace}/{NAME}", "-o", "json").out)
    held = {
        one["node"]: one["address"]
        for one in shown["addresses"]
        if str(one["pod"]).startswith(f"{launcher.namespace}/")
    }
    assert held == found, shown


def check_release(launcher: Launcher) -> None:
    """A lease of a pod that does not exist is named; the commands that are printed release it."""
    cluster, gone = launcher.cluster, f"{launcher.namespace}/gone"
    pool = ("ippools.whereabouts.cni.cncf.io", "fcbb-0-803---64", "-n", "kube-system")
    lease = {"id": "sandbox", "podref": gone, "ifname": "net1"}
    patch = [{"op": "add", "path": "/spec/allocations/99999", "value": lease}]
    cluster.kubectl("patch", *pool, "--type", "json", "-p", json.dumps(patch))
    shown = launcher.run("network", "show", NAME, "-n", launcher.namespace).out
    assert f"{gone}" in shown, shown
    (command,) = (line for line in shown.splitlines() if line.startswith("  kubectl "))
    release, delete = (shlex.split(part)[1:] for part in command.split(" && "))
    entry = "/spec/allocations/99999/id"
    for name, works in (("another", False), ("sandbox", True)):
        patch = [{"op": "replace", "path": entry, "value": name}]
        cluster.kubectl("patch", *pool, "--type", "json", "-p", json.dumps(patch))
        if works:
            cluster.kubectl(*release)
        else:  # a new pod of this name holds the lease
            with pytest.raises(ClusterFailure, match="test"):
                cluster.kubectl(*release)
    cluster.kubectl(*delete)
    assert gone not in launcher.run("network", "show", NAME, "-n", launcher.namespace).out


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
    """With the oldest cniVersion for which Multus writes network-status."""
    words = ("--range", OWN_RANGE, "--exclude", EXCLUDED, "--log-file", LOG)
    found = addresses(launcher, *words, version=VERSIONS[0], meanwhile=check_release)
    for node, address in found.items():
        assert ipaddress.IPv6Address(address) not in ipaddress.IPv6Network(EXCLUDED)
        # The plugin itself tells what it did only there.
        assert address in launcher.cluster.on_node(node, "cat", LOG)
