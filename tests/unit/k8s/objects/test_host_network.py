"""Pods in their hosts' network: ``--network host:…``, and RDMA devices by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit import asked as anywhere
from tests.unit.asked_kubernetes import BASE, wrong
from tests.unit.rendered import command_of, each_form, env_of, only, pod_template, render, spec_of
from torchnet import constants
from torchnet.agent.command_line import parse


@each_form
def test_workers_are_in_the_hosts_network_one_on_each_host(form: str) -> None:
    found = render(networks=("host:10.10.0.0/16", "rdma:mlx5_0"), workload=form)
    template = pod_template(found)
    spec = template["spec"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    (rule,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert constants.NETWORKS_ANNOTATION not in template["metadata"].get("annotations", {})
    # A NetworkPolicy would not apply to these pods.
    assert {one["kind"] for one in found}.isdisjoint({"NetworkPolicy", "MultiNetworkPolicy"})
    words = command_of(spec, "prepare")
    own = parse(words[words.index("--network") :])
    assert (list(map(str, own.network)), bool(own.rank0_names)) == (["host:10.10.0.0/16"], False)
    assert "--rank0-names" in command_of(spec, "worker")
    # The hosts' addresses are the kernel's alone.
    assert "--status-dir" not in words
    assert env_of(spec, "worker")[constants.POD_IP_VARIABLE] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert (spec_of(found).network, spec_of(found).devices) == ("host", ("mlx5_0",))


def test_devices_beside_attachments_change_no_pod() -> None:
    found = render(networks=("backend-network", "rdma:mlx5_0"))
    assert "hostNetwork" not in pod_template(found)["spec"]
    assert (spec_of(found).devices, spec_of(found).network) == (("mlx5_0",), "multus-status")
    assert only(found, "NetworkPolicy")


@pytest.mark.parametrize("text", ["host:ens5,ens6", "host:ens5,host:ens6"])
def test_commas_belong_to_the_network(text: str, tmp_path: Path) -> None:
    flags = {name: value for name, value in BASE.items() if name != "network.networks"}
    for job in (
        anywhere.asked(tmp_path, {**flags, "network.networks": [text]}).job,
        anywhere.asked(tmp_path, flags, {"TORCHNET_NETWORK": text}).job,
    ):
        assert [str(one) for one in job.network.host_networks] == ["host:ens5", "host:ens6"]


@pytest.mark.parametrize(
    ("networks", "more", "field"),
    [
        (["host:ens5", "ml/net"], {}, "network.networks"),
        (["rdma:mlx5_0"], {}, "network.networks"),
        (["host:a/b"], {}, "network.networks"),
        (["host:ens5"], {"kubernetes.multi_network_policy": "true"}, "kubernetes.multi_network_policy"),
        (
            ["host:ens5"],
            {"kubernetes.static_ips": ["10.0.0.1-10.0.0.9/24"], "kubernetes.kind": "pods"},
            "kubernetes.static_ips",
        ),
        (["host:ens5"], {"on": "local"}, "network.networks"),
    ],
)
def test_what_does_not_fit_together(
    networks: list[str], more: dict[str, object], field: str, tmp_path: Path
) -> None:
    problems = wrong(tmp_path, {"network.networks": networks, **more}).problems
    assert field in {problem.path for problem in problems}
