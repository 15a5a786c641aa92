"""Which nodes test pods can run on."""

from __future__ import annotations

from typing import Any

import pytest

from torchnet.config.k8s_values import parse_toleration
from torchnet.k8s.verify.nodes import check_nodes, choose

GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def node(
    name: str,
    *taints: dict[str, str],
    ready: bool = True,
    cordoned: bool = False,
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"taints": list(taints), "unschedulable": cordoned},
        "status": {"conditions": conditions},
    }


@pytest.mark.parametrize(
    ("toleration", "usable"),
    [
        ("nvidia.com/gpu", True),
        ("nvidia.com/gpu:NoSchedule", True),
        ("nvidia.com/gpu=present", True),
        (":NoSchedule", True),
        ("nvidia.com/gpu=absent", False),
        ("nvidia.com/gpu:NoExecute", False),
        ("amd.com/gpu", False),
    ],
)
def test_a_taint_keeps_pods_away_that_do_not_tolerate_it(toleration: str, usable: bool) -> None:
    """As the scheduler has it: without a value any value, without an effect any effect."""
    found = choose([node("gpu1", GPU)], {}, [parse_toleration(toleration)])
    assert found.usable == (("gpu1",) if usable else ())
    assert found.taints == (() if usable else ("nvidia.com/gpu=present:NoSchedule",))


def test_each_taint_needs_its_toleration() -> None:
    other = {"key": "maintenance", "effect": "NoExecute"}
    found = choose([node("gpu1", GPU, other)], {}, [parse_toleration("nvidia.com/gpu")])
    assert found.left_out == {"gpu1": "taint maintenance:NoExecute"}
    preferred = GPU | {"effect": "PreferNoSchedule"}
    assert choose([node("gpu1", preferred)], {}, []).usable == ("gpu1",)


def test_a_cordoned_node_is_left_out_unless_its_taint_is_tolerated() -> None:
    """Also in the moment before the node controller has set the taint."""
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    for cordoned in (node("node1", cordoned=True), node("node1", taint, cordoned=True)):
        found = choose([cordoned], {}, [])
        assert found.left_out == {"node1": "taint node.kubernetes.io/unschedulable:NoSchedule"}
        tolerated = [parse_toleration("node.kubernetes.io/unschedulable")]
        assert choose([cordoned], {}, tolerated).usable == ("node1",)


def test_nodes_without_the_label_are_not_considered_and_those_that_are_not_ready_are_named() -> None:
    nodes = [
        node("gpu2", labels={"pool": "gpu"}),
        node("gpu1", labels={"pool": "gpu"}),
        node("gpu3", ready=False, labels={"pool": "gpu"}),
        node("cpu1"),
    ]
    found = choose(nodes, {"pool": "gpu"}, [])
    assert found.usable == ("gpu1", "gpu2")
    assert found.left_out == {"gpu3": "not Ready"}
    check = check_nodes(found, {"pool": "gpu"})
    assert (check.result, check.evidence) == ("ok", "gpu1, gpu2: Ready; left out: gpu3 (not Ready)")


def test_if_a_taint_is_all_that_is_in_the_way_the_option_is_named() -> None:
    check = check_nodes(choose([node("gpu1", GPU)], {}, []), {})
    assert check.result == "fail"
    assert "gpu1 (taint nvidia.com/gpu=present:NoSchedule)" in check.evidence
    assert check.fix == "--toleration nvidia.com/gpu=present:NoSchedule"
    assert parse_toleration(check.fix.removeprefix("--toleration ")) == GPU | {"operator": "Equal"}


CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
GPU_TEXT = "nvidia.com/gpu=present:NoSchedule"


def proposed(*nodes: dict[str, Any]) -> str:
    return check_nodes(choose(nodes, {}, []), {}).fix


def test_the_taint_of_most_nodes_is_proposed_and_never_the_control_planes_or_a_drained_nodes() -> None:
    team = {"key": "example.com/team", "effect": "NoSchedule"}
    gpus = [node("gpu1", GPU), node("gpu2", GPU)]
    others = [node("cp1", CONTROL_PLANE), node("gpu3", GPU, cordoned=True), node("a", team)]
    assert proposed(*others, *gpus) == f"--toleration {GPU_TEXT}"
    uninitialized = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule"}
    lost = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    nothing = [node(f"cp{number}", CONTROL_PLANE) for number in range(3)]
    nothing += [node("gpu3", GPU, cordoned=True), node("new", uninitialized), node("lost", lost)]
    assert proposed(*nothing) == "kubectl get nodes"


def test_a_node_with_two_taints_needs_both_tolerations() -> None:
    team = {"key": "example.com/team", "effect": "NoExecute"}
    assert (
        proposed(node("gpu1", GPU, team))
        == f"--toleration example.com/team:NoExecute --toleration {GPU_TEXT}"
    )


def test_many_nodes_that_are_left_out_are_counted() -> None:
    nodes = [node("good"), *(node(f"bad{number:02}", GPU) for number in range(20))]
    evidence = check_nodes(choose(nodes, {}, []), {}).evidence
    assert evidence.endswith(" and 12 more")
    assert "bad07" in evidence
    assert "bad08" not in evidence
    hostile = check_nodes(choose([node("a", GPU | {"value": "\x1b[2J"})], {}, []), {})
    assert hostile.evidence.isprintable()
