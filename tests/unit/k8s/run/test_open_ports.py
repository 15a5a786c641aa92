"""What the start of a run on a cluster says of the ports that stay open."""

from __future__ import annotations

from typing import Any

import pytest

from torchnet.config.job_spec import JobSpec
from torchnet.k8s.run.launch import open_ports_notice


def job(nnodes: int, network: str = "backend-network", **kubernetes: Any) -> JobSpec:
    said = {
        "on": "kubernetes",
        "script": "train.py",
        "nnodes": nnodes,
        "network": {"networks": (network,)},
    }
    return JobSpec.model_validate({**said, "kubernetes": {"image": "example.com/pytorch:1", **kubernetes}})


def test_the_stores_ports_are_named_with_the_way_to_close_them() -> None:
    said = open_ports_notice(job(2))
    assert "29501-29599" in said
    assert "Gloo and NCCL (any port)" in said
    assert "--multi-network-policy closes all ports there, if a controller enforces it" in said
    assert "\n" not in said


def test_without_a_policy_the_pod_network_is_named_as_well() -> None:
    said = open_ports_notice(job(2, network_policy="none"))
    assert "29501-29599" in said
    assert "any pod that the namespace's policies admit" in said
    assert "--multi-network-policy" not in said, "it needs isolate"


def test_in_the_hosts_network_no_policy_is_recommended() -> None:
    said = open_ports_notice(job(2, "host:ens5"))
    assert "29501-29599" in said
    assert "--multi-network-policy" not in said, "it is refused"


@pytest.mark.parametrize("closed", [job(2, multi_network_policy=True), job(1)], ids=["policy", "one worker"])
def test_nothing_is_said_where_nothing_is_open(closed: JobSpec) -> None:
    assert open_ports_notice(closed) == ""
