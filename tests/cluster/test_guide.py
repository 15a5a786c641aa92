"""manifests/multus-guide.md does what it says, from its first command to its last, on a real cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.cluster import addons, control_plane
from tests.cluster.addons import MANIFESTS, ROOT
from tests.cluster.cluster import Cluster
from tests.cluster.guide import Step, shown, steps
from tests.cluster.shell import wait_until

STEPS = steps()
WAY = [step for step in STEPS if step.kind == ""]
# What cannot be run here, by a part of its text, and why.
NOT_HERE = {"helm upgrade": "no Cilium here, and no Helm"}
# What comes first, so that the way begins on an empty cluster.
FIRST = ("delete -f whereabouts-install.yaml", "rm -f /etc/cni/net.d/00-multus.conf")
PODS = ("pytorch-training", "pytorch-worker-0", "pytorch-worker-1")
SLICES = "kubectl delete -f backend-network-slices-nad.yaml"
STATIC = "backend-network-static-nad"
# Alternatives, by a part of their text, tried when the pods of the way have gone, and how each is undone.
INSTEAD = {
    "--mode l3": SLICES,
    "--slice node1=fcbb:0:800:ffff:1::/80": SLICES,
    "--exclude fcbb": "",
    "--log-file": "",
    "backend-network-bridge-nad": "",
    "ip link add br-backend": "ip link delete br-backend",
    "ip -6 route replace": "ip -6 route delete fcbb:0:800:2:1::/80",
    "promisc on": "ip link set ens5 promisc off",
    STATIC: "kubectl delete -f backend-network-static-nad.yaml -f pytorch-pod-example-static.yaml",
}


@dataclass(frozen=True)
class Shell:
    """A shell in the folder manifests/, as the guide's reader has it, with kubectl and torchnet on PATH."""

    folder: Path
    programs: Path

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Its attachments are macvlan here, where they get pods: this kernel has no ipvlan. That is one of its choices."""
    if shutil.which("jq") is None:
        pytest.skip("the guide's commands need jq")
    cluster.wait_for_deleted()  # the pods there would be without the network that the guide takes away
    folder = tmp_path_factory.mktemp("guide")
    manifests, programs = folder / "manifests", folder / "bin"
    shutil.copytree(MANIFESTS, manifests)
    for name, words in (
        ("backend-network", ()),
        ("backend-network-static", ("--ipam", "static", "--name", "backend-network-static")),
    ):
        (manifests / f"{name}-nad.yaml").write_text(addons.attachment("default", *words))
    programs.mkdir()
    commands = {
        "kubectl": " ".join(control_plane.kubectl_command()),
        "torchnet": f"env PYTHONPATH={ROOT} {sys.executable} -m torchnet",
    }
    for name, command in commands.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    yield Shell(manifests, programs)
    addons.apply_networks()
    addons.wait_for_networks()
    for name in ("pytorch-pod-example.yaml", "backend-network-nad.yaml"):
        cluster.kubectl("delete", "--ignore-not-found", "-f", manifests / name)


# One test: each step needs those before it.
def test_its_way_from_an_empty_cluster_to_a_training(shell: Shell, cluster: Cluster) -> None:
    beside = [step for step in STEPS if step.kind in ("choice", "node") and not _is(step, NOT_HERE)]
    looked = [step for step in beside if not _is(step, FIRST) and not _is(step, INSTEAD)]
    assert len(looked) > 3
    for step in beside:
        if _is(step, FIRST):
            _run(shell, cluster, step)
    for node in cluster.nodes:
        assert cluster.on_node(node, "ls", "/etc/cni/net.d").split() == ["10-primary.conflist"]
    assert "cncf.io" not in cluster.kubectl("get", "customresourcedefinitions", "-o", "name")
    for step in WAY:
        # Around in the running pods, before they go.
        for other in looked if step.heading == "Clean up" else []:
            _run(shell, cluster, other)
        said = shell.run(step.commands)
        assert step.output is None or shown(said, step.output), f"{step.name} printed\n{said}"
    # A pod's macvlan goes some seconds after the pod, and ens5 with one cannot have a master.
    wait_until("the pods' addresses to be given back", 20, lambda: not cluster.given_back())
    for part, undo in INSTEAD.items():
        (step,) = [one for one in beside if part in one.commands]
        _run(shell, cluster, step)
        for rank, pod in enumerate(PODS if part == STATIC else ()):
            assert f"rank {rank}: trained over net1" in cluster.kubectl("logs", pod)
        _run(shell, cluster, replace(step, commands=undo))


def _run(shell: Shell, cluster: Cluster, step: Step) -> None:
    """Its commands, in a shell as the guide's reader has it, or each on both nodes."""
    if step.kind != "node":
        assert shell.run(step.commands) or not step.commands, step.name
        return
    for line in step.commands.splitlines():
        for node in cluster.nodes:
            words = line.removeprefix("sudo ").replace("ADDRESS_OF_NODE2", "fe80::2").split()
            cluster.on_node(node, *words)


def _is(step: Step, parts: Collection[str]) -> bool:
    return step.kind == "cilium" or any(part in step.commands for part in parts)


def test_each_block_has_its_place() -> None:
    for part in (*NOT_HERE, *FIRST, *INSTEAD):
        (step,) = [step for step in STEPS if part in step.commands]
        assert step.kind, "a step of the way"


def test_a_pattern_shows_what_it_says() -> None:
    table = "NAME     AGE\nx-1      3s\nx-2      3s\n"
    assert shown(table, "NAME  AGE\nx-…   …\nx-…   …\n")
    assert shown(table, "NAME  AGE\n…\n")
    assert shown("x\n" + table, "…\nNAME AGE\n…\n")
    assert not shown(table, "NAME  AGE\nx-…   …\n")
    assert not shown(table, "NAME  AGE\ny-…   …\nx-…   …\n")
    assert not shown("x\n" + table, "NAME AGE\n…\n")


def test_most_blocks_show_their_output() -> None:
    assert len(WAY) > 10
    assert len([step for step in WAY if step.output]) > 10
