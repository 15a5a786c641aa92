"""manifests/multus-guide.md does what it says, from its first command to its last, on a real cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import control_plane
from tests.cluster.addons import MANIFESTS, ROOT
from tests.cluster.cluster import Cluster
from tests.cluster.guide import Step, shown, steps

STEPS = steps()
WAY = [step for step in STEPS if step.kind == ""]
# Alternatives and looks around that cannot be run here, by a part of their text, and why.
NOT_HERE = {
    "helm upgrade": "no Cilium here, and no Helm",
    "--mode l3": "this kernel has no ipvlan",
    "--exclude fcbb": "this kernel has no ipvlan; test_attachments.py has it as macvlan",
    "--slice node1=fcbb:0:800:ffff:1::/80": "this kernel has no ipvlan; test_attachments.py has it as macvlan",
    "backend-network-static-nad": "this kernel has no ipvlan; test_attachments.py has it as macvlan",
    "backend-network-bridge-nad": "ens5 would have to become a port of the bridge, and it carries the macvlans",
    "ip link add br-backend": "as above",
    "--log-file": "this kernel has no ipvlan; test_attachments.py has it as macvlan",
    "ip -6 route replace": "a placeholder stands in it, and the nodes are on one segment",
    "promisc on": "macvlan works here without it, as the guide says",
    "delete -f whereabouts-install.yaml": "the other tests need what it removes",
    "rm -f /etc/cni/net.d/00-multus.conf": "the other tests need what it removes",
    "torchnet manifests multus --registry": "prints only; tests/unit/test_manifests_guide.py runs it",
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
    """The guide's ipvlan attachment is the macvlan one here, which is one of its choices."""
    if shutil.which("jq") is None:
        pytest.skip("the guide's commands need jq")
    folder = tmp_path_factory.mktemp("guide")
    manifests, programs = folder / "manifests", folder / "bin"
    shutil.copytree(MANIFESTS, manifests)
    shutil.copy(manifests / "backend-network-macvlan-nad.yaml", manifests / "backend-network-nad.yaml")
    programs.mkdir()
    commands = {
        "kubectl": " ".join(control_plane.kubectl_command()),
        "torchnet": f"env PYTHONPATH={ROOT} {sys.executable} -m torchnet",
    }
    for name, command in commands.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    yield Shell(manifests, programs)
    for name in ("pytorch-pod-example.yaml", "backend-network-nad.yaml"):
        cluster.kubectl("delete", "--ignore-not-found", "-f", manifests / name)


# One test: each step needs those before it.
def test_its_way_from_an_empty_cluster_to_a_training(shell: Shell, cluster: Cluster) -> None:
    looked = [step for step in STEPS if step.kind in ("choice", "node") and not _not_here(step)]
    assert len(looked) > 3
    for step in WAY:
        # Around in the running pods, before they go.
        for other in looked if step.heading == "Clean up" else []:
            if other.kind == "choice":
                assert shell.run(other.commands), other.name
            for line in other.commands.splitlines() if other.kind == "node" else []:
                assert [cluster.on_node(node, *line.split()) for node in cluster.nodes], other.name
        said = shell.run(step.commands)
        assert step.output is None or shown(said, step.output), f"{step.name} printed\n{said}"


def _not_here(step: Step) -> bool:
    return step.kind == "cilium" or any(part in step.commands for part in NOT_HERE)


def test_each_reason_is_for_a_block() -> None:
    unused = [part for part in NOT_HERE if not any(part in step.commands for step in STEPS)]
    assert unused == []
    assert [step.name for step in WAY if _not_here(step)] == []


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
