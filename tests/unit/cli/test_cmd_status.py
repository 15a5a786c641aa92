"""``torchnet status``: what a cluster says of a run, fit for a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import Answer, Server, kubeconfig, serving
from tests.unit.kubernetes_objects import NAMESPACE, RUN, ended, pod, waiting
from torchnet.cli import main

HOSTILE = "x\x1b]0;owned\x07\nsecond \u202e line"
SHOWN = ("x\\x1b]0;owned\\x07\\x0asecond", "\\u202e")  # the table breaks the line between them

server = pytest.fixture(serving)


def job(spec: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": RUN,
            "namespace": NAMESPACE,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"torchnet.alt/run": RUN},
            "annotations": {"torchnet.alt/spec": spec},
        }
    }


@pytest.fixture
def cluster(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server.address)))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    return server


def holds(server: Server, spec: str, *pods: dict[str, Any]) -> None:
    """The cluster has no JobSets, this run's Job, and its pods."""
    found: Answer = (200, {}, {"items": list(pods)})
    server.answers = [(404, {}, {}), (200, {}, {"items": [job(spec)]}), found]


SPEC = '{"nnodes": 2, "nproc_per_node": 1, "network": "multus-status"}'
PODS = {
    "waits": pod(1, prepare=waiting("ErrImagePull", HOSTILE)),
    "scheduled": pod(1, scheduled={"status": "False", "message": HOSTILE}),
    "evicted": pod(1, phase="Failed", message=HOSTILE),
}


@pytest.mark.parametrize("body", PODS.values(), ids=PODS)
def test_what_the_cluster_says_of_a_worker_is_escaped(
    cluster: Server, capsys: pytest.CaptureFixture[str], body: dict[str, Any]
) -> None:
    holds(cluster, SPEC, ended(0), body)
    assert main(["status", RUN, "-n", NAMESPACE]) == 0
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    (line,) = [line for line in shown.splitlines() if line.startswith(f"{RUN}-1")]
    assert "x\\x1b]0;owned\\x07" in line  # a newline is a blank in some of the cluster's words
    holds(cluster, SPEC, ended(0), body)
    assert main(["status", RUN, "-n", NAMESPACE, "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["workers"][1]["reason"].isprintable()


def test_a_long_reason_is_cut(cluster: Server, capsys: pytest.CaptureFixture[str]) -> None:
    holds(cluster, SPEC, ended(0), pod(1, prepare=waiting("ErrImagePull", "y" * 5000)))
    assert main(["status", RUN, "-n", NAMESPACE, "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["workers"][1]["reason"].endswith("y… (5014 characters)")
    assert len(row["workers"][1]["reason"]) < 230


def test_a_run_whose_annotation_is_hostile(cluster: Server, capsys: pytest.CaptureFixture[str]) -> None:
    holds(cluster, HOSTILE)
    assert main(["status", RUN, "-n", NAMESPACE]) == 0
    shown = capsys.readouterr().out
    assert "unknown: " in shown
    assert all(part in shown for part in SHOWN)
