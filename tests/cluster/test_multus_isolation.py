"""`torchnet manifests multus --namespace-isolation`: a pod gets no attachment of another tenant."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.cluster import addons
from tests.cluster.addons import ROOT
from tests.cluster.cluster import Cluster
from tests.cluster.launcher import Launcher
from tests.cluster.shell import run, wait_until

MULTUS = ("-n", "kube-system", "daemonset", "kube-multus-ds")
HELLO = "print('hello', flush=True)\n"


def reinstall(cluster: Cluster, manifest: str, *, isolated: bool) -> None:
    """Replace the DaemonSet on both nodes at once: a rollout would take one node after the other."""
    cluster.kubectl("delete", *MULTUS, "--wait")
    cluster.kubectl("apply", "-f", "-", input=manifest)

    def written(node: str) -> bool:
        found = cluster.on_node(node, "sh", "-c", "cat /etc/cni/net.d/00-multus.conf*")
        return ('"namespaceIsolation": true' in found) == isolated

    for node in cluster.nodes:
        wait_until(f"{node}'s configuration of Multus", 30, lambda node=node: written(node))  # type: ignore[misc]
    addons.wait_for_networks()


@pytest.fixture
def isolation(cluster: Cluster) -> Iterator[None]:
    words = (sys.executable, "-m", "torchnet", "manifests", "multus", "--namespace-isolation")
    reinstall(cluster, run(*words, "--global-namespace", "shared", cwd=ROOT), isolated=True)
    yield
    reinstall(cluster, (addons.MANIFESTS / "multus-install.yaml").read_text(), isolated=False)


def test_attachments_of_other_tenants_are_out_of_reach(launcher: Launcher, isolation: None) -> None:
    del isolation
    script = launcher.script(HELLO)
    with launcher.cluster.namespace() as other:
        words = launcher.words("--start-timeout", "8s", nnodes=1, network=f"{other}/backend-network")
        ran = launcher.run(*words, script)
        assert ran.code == 124, ran.err
        assert "namespace isolation enabled" in ran.err
    ran = launcher.run(*launcher.words(nnodes=1), script)
    assert ran.code == 0, ran.err
    assert "hello" in ran.out
