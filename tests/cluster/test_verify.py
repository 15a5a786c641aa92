"""torchnet verify on the real cluster: what is good, and what it finds when something is missing."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.cluster import addons, tokens
from tests.cluster.cluster import Cluster
from tests.cluster.concurrency import concurrent
from tests.cluster.faults import cable_cut, tainted
from tests.cluster.launcher import Launcher

MULTUS_KUBECONFIG = "/etc/cni/net.d/multus.d/multus.kubeconfig"


def verify(launcher: Launcher, *words: str) -> tuple[int, str]:
    image = launcher.cluster.worker_image
    ran = launcher.run("verify", "-n", launcher.namespace, "--image", image, *words)
    assert launcher.left() == []
    print(ran.out, ran.err, f"{ran.seconds:.1f} s")
    return ran.code, ran.out + ran.err


def document(launcher: Launcher, *words: str) -> dict[str, Any]:
    """Of ``-o json``, with all nodes."""
    image = launcher.cluster.worker_image
    where = ("-n", launcher.namespace, "--image", image)
    ran = launcher.run("verify", "--all-nodes", "-o", "json", *where, *words)
    assert launcher.left() == []
    print(ran.out, ran.err, f"{ran.seconds:.1f} s")
    found: dict[str, Any] = json.loads(ran.out)
    assert found["exit_code"] == ran.code
    return found


def test_a_cable_that_is_cut_is_found(launcher: Launcher) -> None:
    with cable_cut(launcher.cluster, "node2"):
        code, said = verify(launcher)
        found = document(launcher)
    assert code == 4, said
    (failed,) = (line for line in said.splitlines() if line.startswith("FAIL"))
    assert "link" in failed, said
    assert "on node2: net1 has no carrier" in failed, said
    assert (found["exit_code"], found["faulty_nodes"]) == (4, ["node2"])
    assert [one["name"] for one in found["checks"] if one["result"] == "fail"] == ["node node2"]


def test_all_of_the_nodes_are_tainted(launcher: Launcher) -> None:
    """As GPU nodes are; and on two rails."""
    second = addons.attachment(launcher.namespace, "--name", "rail-2", range_="fcbb:0:802::/64")
    launcher.cluster.kubectl("create", "-f", "-", input=second)
    rails = ("--network", "backend-network", "--network", "rail-2")
    with tainted(launcher.cluster, "nvidia.com/gpu=present:NoSchedule"):
        code, said = verify(launcher)
        assert code == 4, said
        assert "node1 (taint nvidia.com/gpu=present:NoSchedule)" in said
        assert "fix: --toleration nvidia.com/gpu=present:NoSchedule" in said
        found = document(launcher, "--toleration", "nvidia.com/gpu", *rails)
    assert (found["exit_code"], found["result"], found["faulty_nodes"]) == (0, "ok", [])
    assert found["nodes"] == [{"name": name, "result": "ok", "reason": None} for name in ("node1", "node2")]
    assert [path["rail"] for path in found["paths"]] == ["net1", "net2"]
    for path in found["paths"]:
        assert path["nodes"] == ["node1", "node2"]
        assert (path["result"], path["packet_bytes"]) == ("ok", 9000)
        assert all(rate > 1e6 for rate in path["bytes_per_s"])


def test_a_token_of_multus_that_is_too_old_is_named_and_the_command_renews_it(launcher: Launcher) -> None:
    """On one node of two: the test pods are on both."""
    cluster = launcher.cluster
    minute = {"account": "multus", "namespace": "kube-system", "seconds": 60.0}
    old = tokens.mint(cluster, begun=time.time() - 600, **minute)  # type: ignore[arg-type]
    assert tokens.is_accepted(cluster, tokens.mint(cluster, begun=time.time(), **minute))  # type: ignore[arg-type]
    assert not tokens.is_accepted(cluster, old)
    try:
        cluster.on_node("node2", "sed", "-i", f's|token: .*|token: "{old}"|', MULTUS_KUBECONFIG)
        assert old in cluster.on_node("node2", "cat", MULTUS_KUBECONFIG)
        code, said = verify(launcher)
    finally:
        renew(cluster)
    assert code == 4, said
    lines = said.splitlines()
    (failed,) = (number for number, line in enumerate(lines) if line.startswith("FAIL"))
    assert "the API server rejects the token of Multus on node2 (Unauthorized)" in lines[failed]
    assert lines[failed + 1].strip() == "fix: kubectl " + " ".join(RENEW)
    assert old not in cluster.on_node("node2", "cat", MULTUS_KUBECONFIG), "the command has renewed it"


RENEW = ("rollout", "restart", "-n", "kube-system", "daemonset/kube-multus-ds")


def renew(cluster: Cluster) -> None:
    cluster.kubectl(*RENEW)
    cluster.kubectl("rollout", "status", *RENEW[2:], "--timeout=90s")


@concurrent
def test_a_network_that_works(launcher: Launcher) -> None:
    code, said = verify(launcher)
    assert code == 0, said
    for text in (
        "Multus: Ready on 2 of 2 nodes",
        "Whereabouts: Ready on 2 of 2 nodes",
        "macvlan on ens5",
    ):
        assert text in said
    assert "9000 bytes in both directions" in said
    assert "FAIL" not in said


@concurrent
def test_a_tenant_has_two_pods_tried(launcher: Launcher) -> None:
    """With the role edit alone, who may not list nodes."""
    kubectl, namespace = launcher.cluster.kubectl, launcher.namespace
    kubectl("create", "serviceaccount", "tenant", "-n", namespace)
    bound = ("--clusterrole=edit", f"--serviceaccount={namespace}:tenant")
    kubectl("create", "rolebinding", "tenant", "-n", namespace, *bound)
    token = kubectl("create", "token", "tenant", "-n", namespace).strip()
    (launcher.folder / "tenant.conf").write_text(tokens.kubeconfig(token))
    own = ("--kubeconfig", "tenant.conf")
    code, said = verify(launcher, *own)
    assert code == 0, said
    for name in ("nodes: not allowed to list nodes", "Multus: not allowed to list daemonsets.apps"):
        assert f"?     {name}" in said
    assert "9000 bytes in both directions between node" in said
    code, said = verify(launcher, "--all-nodes", *own)
    assert code == 3, said
    assert "without --all-nodes, two pods are tested" in said


@concurrent
def test_an_attachment_that_is_missing_and_one_without_a_version(launcher: Launcher) -> None:
    code, said = verify(launcher, "--network", "nosuch")
    assert code == 4, said
    assert "FAIL  attachment" in said
    patch = '{"spec": {"config": "{\\"type\\": \\"macvlan\\", \\"master\\": \\"ens5\\"}"}}'
    kubectl, name = launcher.cluster.kubectl, "net-attach-def/backend-network"
    kubectl("patch", name, "-n", launcher.namespace, "--type=merge", "-p", patch)
    code, said = verify(launcher)
    assert code == 4, said
    assert "no network-status" in said
