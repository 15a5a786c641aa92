"""The two networks of the cluster, as the project's own manifests make them: eth0, and net1 on ens5."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

import pytest

from tests.cluster.addons import RANGE
from tests.cluster.cluster import Cluster
from tests.cluster.network import BACKEND_MTU
from tests.cluster.pods import status, staying, wait_for_address
from tests.cluster.shell import ClusterFailure

# Full size: IPv6's header has 40 bytes, ICMP's 8.
FULL = str(BACKEND_MTU - 48)
PODS = {"left": "node1", "right": "node2"}


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A restricted namespace with a pod on each node."""
    with cluster.namespace(range_=RANGE) as name:
        for pod, node in PODS.items():
            cluster.kubectl("-n", name, "apply", "-f", "-", input=json.dumps(staying(pod, node, name)))
        cluster.kubectl("-n", name, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        for pod in PODS:
            wait_for_address(cluster, name, pod)
        yield name


def address(cluster: Cluster, namespace: str, pod: str) -> str:
    """What Multus says that the pod got on net1."""
    body = json.loads(cluster.kubectl("-n", namespace, "get", "pod", pod, "-o", "json"))
    entry = status(body, f"{namespace}/backend-network")
    assert entry["interface"] == "net1"
    (own,) = entry["ips"]
    assert isinstance(own, str)
    return own


def inside(cluster: Cluster, namespace: str, pod: str, *command: str) -> str:
    return cluster.kubectl("-n", namespace, "exec", pod, "--", *command)


def test_both_nodes_are_ready(cluster: Cluster) -> None:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    ready = {
        node["metadata"]["name"]: condition["status"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    }
    assert ready == dict.fromkeys(cluster.nodes, "True")


@pytest.mark.parametrize("app", ["multus", "whereabouts"])
def test_a_pod_of_each_runs_on_each_node(cluster: Cluster, app: str) -> None:
    pods = json.loads(cluster.kubectl("-n", "kube-system", "get", "pods", "-l", f"app={app}", "-o", "json"))
    running = {pod["spec"]["nodeName"]: pod["status"]["phase"] for pod in pods["items"]}
    assert running == dict.fromkeys(cluster.nodes, "Running")
    restarts = [one["restartCount"] for pod in pods["items"] for one in pod["status"]["containerStatuses"]]
    assert restarts == [0, 0]


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_has_what_network_status_says(cluster: Cluster, namespace: str, pod: str) -> None:
    links = {
        link["ifname"]: link
        for link in json.loads(inside(cluster, namespace, pod, "ip", "-json", "address", "show"))
    }
    assert set(links) == {"lo", "eth0", "net1"}
    assert links["net1"]["mtu"] == BACKEND_MTU
    own = address(cluster, namespace, pod)
    assert ipaddress.IPv6Address(own) in ipaddress.IPv6Network(RANGE)
    found = {one["local"]: one["prefixlen"] for one in links["net1"]["addr_info"] if one["scope"] == "global"}
    assert found == {own: 64}
    assert inside(cluster, namespace, pod, "cat", "/proc/sys/net/ipv6/conf/net1/accept_ra") == "0\n"
    assert inside(cluster, namespace, pod, "id", "-u") == "1000\n"


@pytest.mark.parametrize(("pod", "other"), [("left", "right"), ("right", "left")])
def test_full_packets_reach_the_other_node(cluster: Cluster, namespace: str, pod: str, other: str) -> None:
    target = address(cluster, namespace, other)
    ping = ("ping", "-c", "3", "-i", "0.2", "-W", "2", "-M", "do")
    before = cluster.ens5_counters(PODS[pod]).sent
    assert " 0% packet loss" in inside(cluster, namespace, pod, *ping, "-s", FULL, target)
    assert cluster.ens5_counters(PODS[pod]).sent - before >= 3 * BACKEND_MTU
    with pytest.raises(ClusterFailure, match="100% packet loss|too long"):
        inside(cluster, namespace, pod, *ping, "-s", str(int(FULL) + 1), target)


def test_a_cut_cable_is_seen_in_the_pod_and_mended(cluster: Cluster, namespace: str) -> None:
    def carrier() -> str:
        (link,) = json.loads(inside(cluster, namespace, "left", "ip", "-json", "link", "show", "dev", "net1"))
        return "no" if "NO-CARRIER" in link["flags"] else "yes"

    assert carrier() == "yes"
    cluster.cut_cable("node1")
    try:
        assert carrier() == "no"
    finally:
        cluster.mend_cable("node1")
    assert carrier() == "yes"


def test_a_restricted_namespace_refuses_a_plain_pod(cluster: Cluster, namespace: str) -> None:
    plain = json.dumps(staying("plain", "node1", namespace, restricted=False))
    with pytest.raises(ClusterFailure, match="violates PodSecurity"):
        cluster.kubectl("-n", namespace, "apply", "-f", "-", input=plain)


def test_the_api_server_comes_back(cluster: Cluster, namespace: str) -> None:
    cluster.restart_apiserver()
    assert inside(cluster, namespace, "left", "true") == ""
