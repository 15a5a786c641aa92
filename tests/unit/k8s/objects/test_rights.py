"""Who may do what and who reaches whom: rights, the token, networks, addresses and policies."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.unit.pod_security import containers
from tests.unit.rendered import command_of, each_form, env_of, only, pod_template, render, spec_of, text_of
from torchnet import constants
from torchnet.config.k8s_values import parse_addresses
from torchnet.k8s.objects.run_objects import pod_of
from torchnet.k8s.run.run_info import read_run_info

# -- rights


def test_the_rights_are_just_what_discovery_needs() -> None:
    found = render()
    assert only(found, "Role")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
    ]
    assert only(found, "ServiceAccount")["automountServiceAccountToken"] is False
    assert only(found, "RoleBinding")["subjects"] == [
        {"kind": "ServiceAccount", "name": "train", "namespace": "ml"}
    ]


def test_an_account_that_exists_needs_no_rights() -> None:
    found = render(service_account="torchnet")
    assert not {"ServiceAccount", "Role", "RoleBinding"} & {body["kind"] for body in found}
    assert pod_template(found)["spec"]["serviceAccountName"] == "torchnet"


@each_form
def test_the_token_of_the_api_is_the_init_containers_alone(form: str) -> None:
    spec = pod_template(render(workload=form))["spec"]
    assert spec["automountServiceAccountToken"] is False
    mounts = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in containers(spec)}
    assert "api" in mounts["prepare"]
    assert "api" not in mounts["worker"]
    assert "token" in mounts["prepare"] & mounts["worker"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["api"]["projected"]["defaultMode"] == volumes["token"]["secret"]["defaultMode"] == 0o440


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
    assert not {"ServiceAccount", "Role", "RoleBinding"} & {body["kind"] for body in found}
    pods = [body for body in found if body["kind"] == "Pod"]
    for index, pod in enumerate(pods):
        assert "serviceAccountName" not in pod["spec"]
        assert "api" not in {volume["name"] for volume in pod["spec"]["volumes"]}
        addresses = [parse_addresses(text, 3)[index] for text in ranges]
        assert json.loads(pod["metadata"]["annotations"][constants.NETWORKS_ANNOTATION]) == [
            {"name": "a", "namespace": "ml", "interface": "net1", "ips": [addresses[0]]},
            {"name": "b", "namespace": "other", "interface": "net2", "ips": [addresses[1]]},
        ]
        words = command_of(pod["spec"], "prepare")
        assert words[words.index("--rank0") + 1] == "fcbb:0:800:ffff::100,10.0.0.1"
        assert "--address-source" not in words
        source = f"static:net1={addresses[0]},net2={addresses[1]}"
        assert env_of(pod["spec"], "prepare")["TORCHNET_ADDRESS_SOURCE"] == source
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
