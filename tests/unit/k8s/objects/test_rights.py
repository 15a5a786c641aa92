"""Who may do what and who reaches whom: rights, the token, networks, addresses and policies."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.unit.pod_security import containers
from tests.unit.rendered import (
    CODE,
    command_of,
    each_form,
    env_of,
    job,
    only,
    pod_template,
    render,
    spec_of,
    text_of,
)
from torchnet import constants
from torchnet.config.k8s_values import parse_addresses
from torchnet.k8s.objects.run_objects import objects, pod_of
from torchnet.k8s.run.run_info import read_run_info

# -- rights


RBAC = {"ServiceAccount", "Role", "RoleBinding"}
EDIT = {"ConfigMap", "Secret", "Service", "NetworkPolicy", "Job", "Pod"}  # what the built-in role may create


@each_form
def test_a_launch_creates_no_rights_and_gives_no_pod_a_token(form: str) -> None:
    found = render(workload=form)
    assert {body["kind"] for body in found} <= EDIT | {"JobSet"}
    spec = pod_template(found)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    text = text_of(found)
    assert "serviceAccountToken" not in text.replace("automountServiceAccountToken", "")
    assert constants.API_DIR not in text
    assert "--rank0-labels" not in text


@each_form
def test_an_account_of_the_users_lets_the_training_container_ask_the_api(form: str) -> None:
    found = render(workload=form, service_account="torchnet")
    assert not RBAC & {body["kind"] for body in found}
    spec = pod_template(found)["spec"]
    assert spec["serviceAccountName"] == "torchnet"
    assert spec["automountServiceAccountToken"] is False
    mounts = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in containers(spec)}
    assert {"api", "token"} <= mounts["worker"]
    assert not {"api", "token"} & mounts["prepare"]  # it joins nobody
    assert "TORCHNET_TOKEN_FILE" not in env_of(spec, "prepare")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["api"]["projected"]["defaultMode"] == volumes["token"]["secret"]["defaultMode"] == 0o440


@pytest.mark.parametrize("form", ["job", "pods"])
def test_rank_0_alone_has_the_name_by_which_it_is_found(form: str) -> None:
    found = render(workload=form)
    service = only(found, "Service")
    spec, name = service["spec"], service["metadata"]["name"]
    assert (name, spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("train", "None", True)
    assert [(port["name"], port["port"]) for port in spec["ports"]] == [("join", constants.JOIN_PORT)]
    for index in range(4):
        pod = pod_of(found, index)
        selected = spec["selector"].items() <= pod["metadata"]["labels"].items()
        assert selected == (index == 0)
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == (f"train-{index}", "train")
    words = command_of(pod_template(found)["spec"], "worker")
    assert words[words.index("--rank0-names") + 1] == "train,train-0.train,_join._tcp.train"


def test_a_jobset_has_a_service_of_its_own() -> None:
    found = render(workload="jobset")
    assert "Service" not in {body["kind"] for body in found}
    words = command_of(pod_template(found)["spec"], "worker")
    assert words[words.index("--rank0-names") + 1] == "train-w-0-0.train"
    assert pod_of(found, 0)["spec"]["hostname"] == "train-w-0-0"


def test_a_services_name_begins_with_a_letter() -> None:
    found = objects(job(), "1a", "ml", "t", CODE)
    assert only(found, "Service")["metadata"]["name"] == pod_template(found)["spec"]["subdomain"] == "run-1a"


@each_form
def test_each_worker_reads_its_own_annotations_in_both_containers(form: str) -> None:
    spec = pod_template(render(workload=form))["spec"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "status"]
    fields = {item["path"]: item["fieldRef"]["fieldPath"] for item in volume["downwardAPI"]["items"]}
    assert fields == {
        "network-status": f"metadata.annotations['{constants.STATUS_ANNOTATION}']",
        "networks": f"metadata.annotations['{constants.NETWORKS_ANNOTATION}']",
    }
    for container in containers(spec):
        words = command_of(spec, container["name"])
        assert words[words.index("--status-dir") + 1] == constants.STATUS_DIR
        assert [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "status"] == [
            constants.STATUS_DIR
        ]
    assert env_of(spec, "worker")[constants.POD_IP_VARIABLE]


def test_the_secret_is_where_it_belongs_and_nowhere_else() -> None:
    found = render()
    assert base64.b64decode(only(found, "Secret")["data"]["token"]) == b"the secret"
    rest = text_of([body for body in found if body["kind"] != "Secret"])
    assert "the secret" not in rest
    assert spec_of(found).token == ""
    assert base64.b64encode(b"the secret").decode() not in rest
    named = render(token_secret="mine")
    assert "Secret" not in [body["kind"] for body in named]
    volume = next(one for one in pod_template(named)["spec"]["volumes"] if one["name"] == "token")
    assert volume["secret"]["secretName"] == "mine"


# -- fixed addresses


def test_with_fixed_addresses_nobody_asks_the_api() -> None:
    ranges = ["fcbb:0:800:ffff::100-fcbb:0:800:ffff::1ff/64", "10.0.0.1/24,10.0.0.2/24,10.0.0.7/24"]
    found = render(3, networks=("a", "other/b=x.example/vf"), static_ips=ranges)
    assert not {"Service", *RBAC} & {body["kind"] for body in found}
    pods = [body for body in found if body["kind"] == "Pod"]
    for index, pod in enumerate(pods):
        assert "serviceAccountName" not in pod["spec"]
        assert not {"api", "status"} & {volume["name"] for volume in pod["spec"]["volumes"]}
        assert "subdomain" not in pod["spec"]
        addresses = [parse_addresses(text, 3)[index] for text in ranges]
        assert json.loads(pod["metadata"]["annotations"][constants.NETWORKS_ANNOTATION]) == [
            {"name": "a", "namespace": "ml", "interface": "net1", "ips": [addresses[0]]},
            {"name": "b", "namespace": "other", "interface": "net2", "ips": [addresses[1]]},
        ]
        words = command_of(pod["spec"], "worker")
        assert words[words.index("--rank0") + 1] == "fcbb:0:800:ffff::100,10.0.0.1"
        source = f"static:net1={addresses[0]},net2={addresses[1]}"
        for name in ("prepare", "worker"):
            words = command_of(pod["spec"], name)
            assert not {"--address-source", "--rank0-names", "--status-dir"} & set(words)
            assert env_of(pod["spec"], name)["TORCHNET_ADDRESS_SOURCE"] == source
    assert read_run_info(pods[0]).network == "static"
    assert pod_of(found, 2) == pods[2]


# -- the network


def test_rails_are_named_one_by_one() -> None:
    found = render(networks=("vf*3=x.example/vf", "ops/b"))
    template = pod_template(found)
    entries = json.loads(template["metadata"]["annotations"][constants.NETWORKS_ANNOTATION])
    assert [(one["namespace"], one["name"], one["interface"]) for one in entries] == [
        *(("ml", "vf", f"net{number}") for number in (1, 2, 3)),
        ("ops", "b", "net4"),
    ]
    said = [str(one) for one in spec_of(found).attachments]
    assert said == ["ml/vf@net1", "ml/vf@net2", "ml/vf@net3", "ops/b@net4"]
    worker = template["spec"]["containers"][0]["resources"]
    assert worker["requests"]["x.example/vf"] == worker["limits"]["x.example/vf"] == "3"
    assert "x.example/vf" not in template["spec"]["initContainers"][0]["resources"]["limits"]


# (namespace, labels) of pods that could connect; None is a host outside of the cluster.
SOURCES: dict[str, tuple[str, dict[str, str]] | None] = {
    "own": ("ml", {"torchnet.alt/run": "train", "team": "a"}),
    "another run": ("ml", {"torchnet.alt/run": "other"}),
    "same namespace": ("ml", {}),
    "same label elsewhere": ("ops", {"torchnet.alt/run": "train"}),
    "outside": None,
}
PORTS = (1, 22, 8080, 29499, 29500, 29550, 29599, 29600, 32768, 65535)
DEFAULT_DENY = {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}


def admitted(*policies: dict[str, Any]) -> set[tuple[str, str, int]]:
    """(source, protocol, port) that the policies allow together: a rule of any of them is enough."""
    return {
        (source, protocol, port)
        for policy in policies
        for rule in policy["spec"].get("ingress", ())
        for source, pod in SOURCES.items()
        for protocol in ("TCP", "UDP", "SCTP")
        for port in PORTS
        if ("from" not in rule or any(is_peer(peer, pod) for peer in rule["from"]))
        and ("ports" not in rule or any(is_port(one, protocol, port) for one in rule["ports"]))
    }


def is_peer(peer: dict[str, Any], pod: tuple[str, dict[str, str]] | None) -> bool:
    assert peer.keys() == {"podSelector"}, "pods of the policy's own namespace, which is ml"
    return pod is not None and pod[0] == "ml" and peer["podSelector"]["matchLabels"].items() <= pod[1].items()


def is_port(one: dict[str, Any], protocol: str, port: int) -> bool:
    return bool(one["protocol"] == protocol and one["port"] <= port <= one.get("endPort", one["port"]))


def test_policies_allow_the_jobs_own_pods_and_open_nothing_that_was_closed() -> None:
    """Row 39: in a namespace with a default-deny policy as well."""
    found = render(networks=("a", "b*2", "a"), multi_network_policy=True)
    eth0 = only(found, "NetworkPolicy")
    rails = [body for body in found if body["kind"] == "MultiNetworkPolicy"]
    assert [body["metadata"]["name"] for body in rails] == ["train-net1", "train-net2"]
    assert [body["metadata"]["annotations"][constants.POLICY_ANNOTATION] for body in rails] == [
        "ml/a",
        "ml/b",
    ]
    assert admitted(DEFAULT_DENY) == set()
    own = {("own", protocol, port) for protocol in ("TCP", "UDP", "SCTP") for port in PORTS}
    for policy in (eth0, *rails):
        assert policy["spec"]["podSelector"] == {"matchLabels": {"torchnet.alt/run": "train"}}
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        assert admitted(policy) == admitted(DEFAULT_DENY, policy) == own


def test_policies_are_left_out_where_they_are_not_wanted() -> None:
    assert "MultiNetworkPolicy" not in [body["kind"] for body in render()]
    found = render(network_policy="none")
    assert not {"NetworkPolicy", "MultiNetworkPolicy"} & {body["kind"] for body in found}
    assert [body for body in render() if body["kind"] != "NetworkPolicy"] == found, "all else is the same"
