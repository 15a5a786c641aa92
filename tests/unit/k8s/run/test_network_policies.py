"""Whether the policies of a namespace let the workers join: what is missing, and no claim where it is not known."""

from __future__ import annotations

from typing import Any

import pytest

from torchnet.constants import JOIN_PORT, RUN_LABEL
from torchnet.k8s.addons.addon_options import Options
from torchnet.k8s.addons.egress_policy import manifests
from torchnet.k8s.objects.network_policy import rules
from torchnet.k8s.run.network_policies import DeniedTraffic, denied_traffic, warning_text

LABELS = {
    RUN_LABEL: "train",
    "app.kubernetes.io/name": "torchnet",
    "app.kubernetes.io/managed-by": "torchnet",
    "team": "a",
}
OWN, DNS = f"the job's own pods (TCP port {JOIN_PORT})", "DNS (UDP port 53)"


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ml"}, "spec": {"podSelector": {}} | spec}


def denied(*policies: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one.direction, one.peer) for one in denied_traffic(policies, "ml", LABELS)}


DENY_ALL = policy("deny-all", policyTypes=["Ingress", "Egress"])
DENY_EGRESS = policy("deny-egress", policyTypes=["Egress"])
BOTH = {("Egress", OWN), ("Egress", DNS)}
OURS = {"metadata": {"name": "train"}, "spec": rules("train")}


def test_nothing_is_denied_without_a_policy_and_by_the_runs_own() -> None:
    assert denied() == set()
    assert denied(OURS) == set()


def test_a_default_deny_policy_and_the_runs_own() -> None:
    assert denied(DENY_ALL) == {("Ingress", OWN), *BOTH}
    assert denied(DENY_ALL, OURS) == BOTH
    assert denied(DENY_EGRESS) == BOTH


def test_with_the_policy_that_is_recommended_nothing_is_missing() -> None:
    (manifest,) = manifests(Options(namespace="ml"))
    assert denied(DENY_ALL, OURS, dict(manifest.body)) == set()


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"team": "b"}},
        {"matchLabels": {RUN_LABEL: "other"}},
        {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]},
        {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]},
        {"matchExpressions": [{"key": "x", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "x", "operator": "In", "values": ["a"]}]},
    ],
    ids=str,
)
def test_policies_of_other_pods_deny_the_workers_nothing(selector: dict[str, Any]) -> None:
    assert denied(policy("other", podSelector=selector, policyTypes=["Egress"])) == set()


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"team": "a"}},
        {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]},
        {"matchExpressions": [{"key": "team", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]},
    ],
    ids=str,
)
def test_policies_that_select_the_workers_do(selector: dict[str, Any]) -> None:
    assert denied(policy("ours", podSelector=selector, policyTypes=["Egress"])) == BOTH


def test_a_policy_without_types_is_one_of_ingress_and_of_egress_if_it_has_such_rules() -> None:
    assert denied(policy("old")) == {("Ingress", OWN)}
    assert denied(policy("old", egress=[{"ports": [{"port": 443}]}])) == {("Ingress", OWN), *BOTH}


ELSEWHERE = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
HERE = {"matchLabels": {"kubernetes.io/metadata.name": "ml"}}


@pytest.mark.parametrize(
    ("rule", "missing"),
    [
        ({}, set()),
        ({"to": []}, set()),
        ({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, set()),
        ({"to": [{"podSelector": {}}]}, {DNS}),
        ({"to": [{"podSelector": {"matchLabels": {"team": "a"}}}]}, {DNS}),
        ({"to": [{"podSelector": {"matchLabels": {"team": "b"}}}]}, {OWN, DNS}),
        ({"to": [{"namespaceSelector": {}}]}, set()),
        ({"to": [{"namespaceSelector": ELSEWHERE}]}, {OWN}),
        ({"to": [{"namespaceSelector": HERE}]}, set()),
        ({"to": [{"namespaceSelector": {"matchLabels": {"zone": "a"}}}]}, set()),
        (
            {"to": [{"namespaceSelector": ELSEWHERE, "podSelector": {"matchLabels": {"k8s-app": "dns"}}}]},
            {OWN},
        ),
        ({"ports": [{"port": 53, "protocol": "UDP"}]}, {OWN}),
        ({"ports": [{"port": 5353, "protocol": "UDP"}]}, {OWN}),
        ({"ports": [{"port": 53}]}, {OWN, DNS}),
        ({"ports": [{"protocol": "UDP"}]}, {OWN}),
        ({"ports": [{"port": "dns", "protocol": "UDP"}]}, {OWN}),
        ({"ports": [{"port": JOIN_PORT}]}, {DNS}),
        ({"ports": [{"port": 29400, "endPort": 29499}]}, {DNS}),
        ({"ports": [{"port": 29400, "endPort": 29498}]}, {OWN, DNS}),
        ({"ports": [{"port": 1, "endPort": 65535}, {"port": 1, "endPort": 65535, "protocol": "UDP"}]}, set()),
    ],
    ids=str,
)
def test_what_a_rule_allows(rule: dict[str, Any], missing: set[str]) -> None:
    found = denied(DENY_EGRESS, policy("more", policyTypes=["Egress"], egress=[rule]))
    assert found == {("Egress", peer) for peer in missing}


def test_rules_of_several_policies_add_up() -> None:
    own = policy("own", policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}]}])
    dns = policy("dns", policyTypes=["Egress"], egress=[{"ports": [{"port": 53, "protocol": "UDP"}]}])
    assert denied(own) == {("Egress", DNS)}
    assert denied(dns) == {("Egress", OWN)}
    assert denied(own, dns) == set()


def test_the_warning_names_policies_rules_and_the_next_command() -> None:
    assert warning_text([], "ml") == ""
    egress = warning_text(denied_traffic([DENY_EGRESS, OURS], "ml", LABELS), "ml")
    assert "deny-egress" in egress
    assert "train" not in egress, "it does not select for egress"
    assert "own pods" in egress
    assert "DNS" in egress
    assert egress.splitlines()[1] == "fix: torchnet manifests network-policy -n ml | kubectl apply -f -"
    both = warning_text(denied_traffic([DENY_ALL], "ml", LABELS), "ml")
    assert "ingress from the job's own pods" in both
    assert "--network-policy isolate" in both
    only = warning_text([DeniedTraffic("Ingress", OWN, ("x",))], "ml")
    assert "kubectl" not in only
