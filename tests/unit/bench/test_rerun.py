"""The command that looks at a network afterwards goes where the benchmark was, whoever named the place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from torchnet.bench.rerun import network_check
from torchnet.config.resolution import resolve

COMMAND = ("torchnet", "bench", "--rate", "1gbit", "--json", "r.json")


def looked(
    folder: Path,
    flags: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    config: str | None = None,
) -> str:
    job = resolve({"script": "train.py", **flags}, environ or {}, str(folder), config).job
    return " ".join(network_check(job, COMMAND))


def test_a_local_network_is_shown_as_it_was_asked_for(tmp_path: Path) -> None:
    assert looked(tmp_path, {}) == "torchnet bench --rate 1gbit --dry-run"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, ""),
        ({"kubernetes.namespace": "ml", "nnodes": 3}, " -n ml"),
        (
            {"kubernetes.context": "far", "kubernetes.kubeconfig": "/etc/k.yaml"},
            " --context far --kubeconfig /etc/k.yaml",
        ),
    ],
)
@pytest.mark.parametrize(
    ("networks", "network"), [(("ml/b*2=a.b/c", "d"), "ml/b"), (("rail-1", "rail-2"), "rail-1")]
)
def test_pods_are_tried_at_the_place_of_the_run(
    tmp_path: Path, networks: tuple[str, ...], network: str, flags: dict[str, object], words: str
) -> None:
    found = looked(
        tmp_path, {"on": "kubernetes", "network.networks": networks, "kubernetes.image": "r/i:1", **flags}
    )
    assert found == f"torchnet verify --network {network} --image r/i:1{words}"


def test_a_place_that_a_file_or_a_variable_names_is_one_too(tmp_path: Path) -> None:
    text = 'on = "kubernetes"\n[network]\nnetworks = ["b"]\n[kubernetes]\nnamespace = "ml"\n'
    (tmp_path / "job.toml").write_text(text)
    found = looked(tmp_path, {}, {"TORCHNET_IMAGE": "r/i:1"}, str(tmp_path / "job.toml"))
    assert found == "torchnet verify --network b --image r/i:1 -n ml"
