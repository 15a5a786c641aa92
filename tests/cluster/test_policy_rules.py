"""The rules that the test cluster enforces: those of the policies, added up, and nothing else. No cluster is needed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.policy_rules import addresses, table


def pod(name: str, ip: str, node: str = "node1", namespace: str = "ml", **labels: str) -> dict[str, Any]:
    port = {"name": "web", "containerPort": 8080}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"ports": [port, {"containerPort": 1}]}, {}]},
        "status": {"podIP": ip, "phase": "Running"},
    }


def policy(namespace: str = "ml", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": {}} | spec}


A, B = pod("a", "10.0.1.1", role="x"), pod("b", "10.0.2.1", "node2", role="y")
C = pod("c", "10.0.2.2", "node2", "ops", role="x")
HOST = pod("h", "10.1.0.1") | {"spec": {"hostNetwork": True, "nodeName": "node1", "containers": []}}
ENDED = pod("e", "10.0.1.9") | {"status": {"podIP": "10.0.1.9", "phase": "Succeeded"}}
NEW = pod("n", "") | {"status": {}}
NAMESPACES = {"ml": {"team": "ml"}, "ops": {"team": "ops"}}


def rules(node: str, *policies: dict[str, Any], held: str = "") -> list[str]:
    """The lines behind the built-in chains, without the one for replies."""
    known = addresses([A, B, C, HOST, ENDED, NEW])
    lines = table(node, known, NAMESPACES, policies, held).splitlines()
    assert lines[0] == "*filter"
    assert lines[-1] == "COMMIT"
    return [line for line in lines if line.startswith("-A") and "conntrack" not in line]


def allowed(node: str, *policies: dict[str, Any]) -> list[str]:
    """What the first pod of the node may be sent, in iptables' words."""
    return [line.partition(" ")[2].removesuffix(" -j RETURN").partition(" ")[2] for line in rules(node, *policies)
            if line.endswith("-j RETURN")]  # fmt: skip


def test_without_policies_nothing_is_denied() -> None:
    assert rules("node1") == []
    assert rules("node1", policy("ops")) == [], "it concerns the pods of its namespace"
    assert rules("node1", policy(podSelector={"matchLabels": {"role": "y"}})) == []


def test_a_pod_is_isolated_where_it_is_and_in_the_directions_of_the_policy() -> None:
    assert rules("node1", policy()) == [
        "-A FORWARD -d 10.0.1.1/32 -m comment --comment ml/a -j INGRESS-0",
        "-A INGRESS-0 -j DROP",
    ]
    assert rules("node2", policy(policyTypes=["Egress"])) == [
        "-A FORWARD -s 10.0.2.1/32 -m comment --comment ml/b -j EGRESS-0",
        "-A EGRESS-0 -j DROP",
    ]
    assert len(rules("node1", policy(policyTypes=["Ingress", "Egress"]))) == 4
    assert len(rules("node1", policy(egress=[{}]))) == 5, "without types, egress by its rules"


@pytest.mark.parametrize(
    ("peers", "words"),
    [
        ([], ["-s 0.0.0.0/0"]),
        ([{"podSelector": {}}], ["-s 10.0.1.1/32", "-s 10.0.2.1/32"]),
        ([{"podSelector": {"matchLabels": {"role": "x"}}}], ["-s 10.0.1.1/32"]),
        ([{"namespaceSelector": {}}], ["-s 10.0.1.1/32", "-s 10.0.2.1/32", "-s 10.0.2.2/32"]),
        ([{"namespaceSelector": {"matchLabels": {"team": "ops"}}}], ["-s 10.0.2.2/32"]),
        (
            [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "x"}}}],
            ["-s 10.0.1.1/32", "-s 10.0.2.2/32"],
        ),
        (
            [{"podSelector": {"matchExpressions": [{"key": "role", "operator": "NotIn", "values": ["x"]}]}}],
            ["-s 10.0.2.1/32"],
        ),
        ([{"podSelector": {"matchExpressions": [{"key": "role", "operator": "DoesNotExist"}]}}], []),
        ([{"ipBlock": {"cidr": "10.9.0.0/30"}}], ["-s 10.9.0.0/30"]),
        (
            [{"ipBlock": {"cidr": "10.9.0.0/30", "except": ["10.9.0.1/32", "10.8.0.0/16"]}}],
            ["-s 10.9.0.0/32", "-s 10.9.0.2/31"],
        ),
    ],
    ids=str,
)
def test_peers(peers: list[Any], words: list[str]) -> None:
    assert allowed("node1", policy(ingress=[{"from": peers}])) == words


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ([], [""]),
        ([{"port": 80}], ["-p tcp --dport 80:80"]),
        ([{"port": 80, "endPort": 90, "protocol": "UDP"}], ["-p udp --dport 80:90"]),
        ([{"protocol": "SCTP"}], ["-p sctp"]),
        ([{"port": "web"}], ["-p tcp --dport 8080:8080"]),
        ([{"port": "nosuch"}], []),
        ([{"port": 1}, {"port": 2}], ["-p tcp --dport 1:1", "-p tcp --dport 2:2"]),
    ],
    ids=str,
)
def test_ports(ports: list[Any], words: list[str]) -> None:
    expected = [f"-s 0.0.0.0/0 {one}".strip() for one in words]
    assert allowed("node1", policy(ingress=[{"ports": ports}])) == expected


def test_the_rules_of_several_policies_add_up() -> None:
    one, two = policy(ingress=[{"ports": [{"port": 1}]}]), policy(ingress=[{"ports": [{"port": 2}]}])
    assert allowed("node1", one, policy(), two) == [
        "-s 0.0.0.0/0 -p tcp --dport 1:1",
        "-s 0.0.0.0/0 -p tcp --dport 2:2",
    ]


def test_a_named_port_of_egress_is_the_other_pods() -> None:
    rule = {"to": [{"podSelector": {"matchLabels": {"role": "y"}}}], "ports": [{"port": "web"}]}
    assert allowed("node1", policy(policyTypes=["Egress"], egress=[rule])) == [
        "-d 10.0.2.1/32 -p tcp --dport 8080:8080"
    ]


def test_pods_that_are_not_known_yet_are_held() -> None:
    assert rules("node1", held="10.0.1.0/24") == [
        "-A FORWARD -s 10.0.1.0/24 -j HELD",
        "-A HELD -s 10.0.1.1/32 -j RETURN",
        "-A HELD -s 10.0.2.1/32 -j RETURN",
        "-A HELD -s 10.0.2.2/32 -j RETURN",
        "-A HELD -j DROP",
    ]


def test_replies_come_first() -> None:
    lines = table("node1", addresses([A]), NAMESPACES, [policy()]).splitlines()
    first = next(line for line in lines if line.startswith("-A"))
    assert first == "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
