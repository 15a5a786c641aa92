"""The example's pods: their security, their group, their rights and their addresses."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from tests.unit.manifested import Object, containers, objects
from tests.unit.pod_security import restricted
from torchnet.k8s.addons.addon_options import EXAMPLE


@pytest.mark.parametrize("given", [{}, {"ipam": "static", "workers": "3"}], ids=str)
def test_the_examples_pods_fit_pod_security_restricted(given: dict[str, Any]) -> None:
    pods = [body for body in objects(EXAMPLE, given) if body["kind"] == "Pod"]
    assert [pod["metadata"]["name"] for pod in pods][:2] == ["pytorch-training", "pytorch-worker-0"]
    for pod in pods:
        assert list(restricted(pod["spec"])) == []
        assert pod["spec"]["securityContext"]["runAsUser"] > 0  # whatever the image's user is
        for container in containers(pod):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({}, (1000, 1000, 1000)),
        ({"run_as": "namespace"}, (None, None, None)),
        ({"run_as": "namespace", "fs_group": "7"}, (None, None, 7)),
        ({"run_as": "5001:0"}, (5001, 0, 0)),
    ],
    ids=str,
)
def test_the_pods_run_as_they_are_to(given: dict[str, Any], ids: tuple[int | None, ...]) -> None:
    for pod in [body for body in objects(EXAMPLE, given) if body["kind"] == "Pod"]:
        context = pod["spec"]["securityContext"]
        assert tuple(context.get(field) for field in ("runAsUser", "runAsGroup", "fsGroup")) == ids
        assert list(restricted(pod["spec"])) == []


def networks(pod: Object) -> Object:
    (one,) = json.loads(pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"])
    return dict(one)


def environment(pod: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}


def test_the_examples_pods_are_one_group() -> None:
    pods = [body for body in objects(EXAMPLE, {"workers": "3"}) if body["kind"] == "Pod"]
    assert [environment(pod)["RANK"] for pod in pods] == ["0", "1", "2", "3"]
    assert {environment(pod)["WORLD_SIZE"] for pod in pods} == {"4"}
    assert {environment(pod)["GLOO_SOCKET_IFNAME"] for pod in pods} == {"net1"}
    assert {environment(pod)["NCCL_SOCKET_IFNAME"] for pod in pods} == {"=net1"}
    assert all(
        networks(pod) == {"name": "backend-network", "namespace": "default", "interface": "net1"}
        for pod in pods
    )


def test_only_the_init_container_has_a_token_and_it_can_get_these_pods_alone() -> None:
    everything = objects(EXAMPLE, {})
    (role,) = [body for body in everything if body["kind"] == "Role"]
    pods = [body for body in everything if body["kind"] == "Pod"]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["pods"],
            "verbs": ["get"],
            "resourceNames": [pod["metadata"]["name"] for pod in pods],
        }
    ]
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        with_token = [c["name"] for c in containers(pod) if "token" in {m["name"] for m in c["volumeMounts"]}]
        assert with_token == ["discover"]


@pytest.mark.parametrize("range_", ["fcbb:0:800:ffff::/64", "10.1.0.0/16", "10.1.0.0/28"])
def test_fixed_addresses_have_a_prefix_length_and_need_no_rights(range_: str) -> None:
    everything = objects(EXAMPLE, {"ipam": "static", "range": range_})
    assert {body["kind"] for body in everything} == {"ConfigMap", "Pod"}
    pods = [body for body in everything if body["kind"] == "Pod"]
    asked = [ipaddress.ip_interface(address) for pod in pods for address in networks(pod)["ips"]]
    assert all("/" in address for pod in pods for address in networks(pod)["ips"])
    assert {address.network for address in asked} == {ipaddress.ip_network(range_)}
    assert len({address.ip for address in asked}) == len(pods)
    half = ipaddress.ip_network(range_).num_addresses // 2
    lowest = int(ipaddress.ip_network(range_).network_address)
    assert all(int(address.ip) - lowest > half for address in asked), "Whereabouts gives out the lower ones"
    assert {environment(pod)["MASTER_ADDR"] for pod in pods} == {str(asked[0].ip)}
    for pod in pods:
        aliases = {one["ip"]: one["hostnames"] for one in pod["spec"]["hostAliases"]}
        names = [f"{other['metadata']['name']}-net1" for other in pods]
        assert aliases == {str(address.ip): [name] for address, name in zip(asked, names, strict=True)}
