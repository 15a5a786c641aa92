"""`python -m tests.cluster`, and the guard that looks for what a cluster leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import recipes, traces
from tests.cluster.addons import ROOT
from tests.cluster.cluster import Cluster
from tests.cluster.places import NODES


def command(*words: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "tests.cluster", *words]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [(), ("sideways",), ("node", "node9", "true"), ("exec",)])
def test_wrong_words_are_answered_with_the_right_ones(words: tuple[str, ...]) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "-m tests.cluster up" in done.stderr


def test_people_use_it(cluster: Cluster) -> None:
    status = command("status")
    assert str(cluster.kubeconfig) in status.stdout
    for part in recipes.PARTS:  # Kueue's controller may still be on its way
        assert re.search(rf"^{part.name} +built$", status.stdout, re.MULTILINE)
    listed = command("kubectl", "get", "nodes", "-o", "name")
    assert listed.stdout.split() == [f"node/{node}" for node in NODES]
    assert command("node", "node2", "hostname").stdout == "node2\n"
    said = command("exec", "sh", "-c", "test -s $KUBECONFIG && ip -br address show dev eth0").stdout
    assert "172.31.0.1/24" in said


def test_a_second_cluster_of_the_name_is_refused(cluster: Cluster) -> None:
    again = command("up")
    assert again.returncode == 1
    assert "a cluster is up on this machine" in again.stderr
    assert command("kubectl", "get", "nodes").returncode == 0


def test_an_object_of_a_run_that_is_left_fails_the_test_and_goes_with_its_namespace(
    cluster: Cluster, jobset: None
) -> None:
    def seen() -> list[str]:
        return cluster.run_objects("torchnet.alt/run=planted")

    job = {"template": {"spec": {"template": {"spec": {"containers": []}}}}, "name": "workers", "replicas": 0}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ConfigMap"},
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "spec": {"suspend": True, "replicatedJobs": [job]},
        },
    ]

    def plant() -> None:
        with cluster.namespace() as namespace:
            assert seen() == []
            for body in objects:
                named = {"name": "planted", "labels": {"torchnet.alt/run": "planted"}, "namespace": namespace}
                cluster.kubectl("create", "-f", "-", input=json.dumps(body | {"metadata": named}))
            assert seen() == ["configmap/planted", "jobset.jobset.x-k8s.io/planted"]

    with pytest.raises(
        AssertionError, match=r"left objects of a run: .*configmap/planted.*jobset\S*/planted"
    ):
        plant()
    cluster.wait_for_deleted()
    assert seen() == []


def test_a_trace_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "left"
    monkeypatch.setattr(traces, "RUN", folder)
    with pytest.raises(AssertionError, match=f"left behind: folder: {folder}"), traces.untouched():
        folder.mkdir()
    with pytest.raises(AssertionError, match=f"taken away: folder: {folder}"), traces.untouched():
        folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_mount_that_stays_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=f"left behind: mount: {tmp_path}"), traces.untouched():
        subprocess.run(["mount", "-t", "tmpfs", "x", tmp_path], check=True)
    subprocess.run(["umount", tmp_path], check=True)
