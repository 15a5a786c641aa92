"""What agents are given of a job: every field has one origin, locally and on Kubernetes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from torchnet.agent import spec
from torchnet.agent.spec import AgentSpec
from torchnet.config import agent_spec
from torchnet.config.job_spec import JobSpec
from torchnet.constants import COLD_START_SECONDS
from torchnet.network.attachment import NetworkAttachment

# What a single worker has, or the machine that it runs on.
WORKERS = {
    *("node_rank", "name", "token", "python", "gpus", "hostid", "cpus"),
    *("phase", "state", "uid", "replaced", "start"),
}
COMMON: dict[str, Any] = {
    "script": "train.py",
    "run": {"grace": 3, "link_grace": 4, "stall_timeout": 5, "stall_action": "stop", "start_timeout": 6},
    "output": {"min_share": 0.5, "measure": True, "full_receipt": True},
}
LOCAL: dict[str, Any] = {
    "network": {"rails": 2, "family": "ipv4", "preflight": "full"},
    "run": COMMON["run"] | {"max_restarts": 7, "stdin_rank": 1},
    "output": COMMON["output"] | {"tee": "1", "redirects": "2", "log_dir": "/logs"},
    "env": {"A": "1"},
    "tune": {"gloo_devices": 2},
}
PODS: dict[str, Any] = {
    "on": "kubernetes",
    "network": {"networks": ["vf*2=x.example/vf", "ops/b"], "family": "ipv6", "preflight": "full"},
    "run": COMMON["run"] | {"max_restarts": 7},
    "kubernetes": {"image": "a:1"},
    "env": {"A": "1"},
}


def given(job: dict[str, Any]) -> AgentSpec:
    made = JobSpec.model_validate(COMMON | job)
    return agent_spec.agent_spec(made, "run", 2, made.script, made.attachments)


def test_every_field_is_set_from_the_job_or_by_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_spec, "AgentSpec", lambda **values: values)
    for job in (LOCAL, PODS):
        made = set(given(job))  # type: ignore[call-overload]
        # The launcher of hosts sets the last two.
        assert made | WORKERS | {"host_names"} == {one.name for one in fields(AgentSpec)}
    assert spec.OWN == WORKERS


@pytest.mark.parametrize("job", [LOCAL, PODS], ids=["local", "kubernetes"])
def test_settings_reach_the_agents(job: dict[str, Any]) -> None:
    made, whole = given(job), COMMON | job
    for table in ("network", "run", "output"):
        for name, value in whole[table].items():
            if name == "start_timeout" and job is PODS:
                value += COLD_START_SECONDS  # other workers' images may be pulled that long
            if name not in ("rails", "networks"):
                assert getattr(made, name) == value, name
    assert made.env == ({"A": "1", "TORCHNET_TUNE_GLOO_DEVICES": "2"} if job is LOCAL else {})
    assert made.network == ("namespaces" if job is LOCAL else "multus-status")


def test_hosts_have_no_attachments() -> None:
    job = {"on": "hosts", "network": {"networks": ["host:ens5", "rdma:mlx5_0"]}, "env": {"A": "1"}}
    made = given(job)
    assert (made.network, made.runtime, made.attachments) == ("host", "agent", ())
    assert (made.devices, made.env, made.loopback) == (("mlx5_0",), {"A": "1"}, False)
    assert made.start_timeout == COMMON["run"]["start_timeout"]


@pytest.mark.parametrize(("place", "rank"), [("local", 0), ("hosts", 0), ("kubernetes", None)])
def test_a_single_process_has_standard_input(place: str, rank: int | None) -> None:
    """The default action of any program; a pod's first process has none."""
    more = {"network": {"networks": ["vf"]}, "kubernetes": {"image": "a:1"}} if place == "kubernetes" else {}
    made = JobSpec.model_validate({"script": "x.py", "on": place, "nnodes": 1, **more})
    for processes, found in ((1, rank), (2, None)):
        assert agent_spec.agent_spec(made, "run", processes, "x.py", made.attachments).stdin_rank == found


def test_a_network_becomes_an_attachment_for_each_rail() -> None:
    assert given(PODS).attachments == (
        NetworkAttachment("", "vf", "net1", "x.example/vf"),
        NetworkAttachment("", "vf", "net2", "x.example/vf"),
        NetworkAttachment("ops", "b", "net3"),
    )
    assert [str(one) for one in given(LOCAL).attachments] == [
        "default/backend-network@net1",
        "default/backend-network-2@net2",
    ]
    alone = given({"network": {"networks": ["loopback"]}})
    assert (alone.attachments, alone.loopback, alone.network) == ((), True, "loopback")


def test_the_agents_restart_a_script_in_a_jobset_too() -> None:
    assert given(PODS | {"kubernetes": {"image": "a:1", "workload": "jobset"}}).max_restarts == 7
