"""torchnet verify's judgement of two test pods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests import golden
from tests.unit.verify_reports import NETWORK, OPTIONS, body, result, state
from torchnet.errors import NetworkError
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.verify.check import Check
from torchnet.k8s.verify.installation import check_configuration
from torchnet.k8s.verify.nodes import NodeChoice, check_nodes, choose
from torchnet.k8s.verify.pod_report import address_of, read_report
from torchnet.k8s.verify.verification import judge_two
from torchnet.network.attachment import NetworkAttachment

NODES = ("node1", "node2")
WITHOUT = {"cniVersion": "1.0.0", "master": "ens5", "ipam": {"type": "whereabouts", "range": "fd00::/64"}}
GOOD = WITHOUT | {"type": "macvlan"}
Said = tuple[dict[str, Any], dict[str, Any]]
FIRST = (body(0, "node1"), state(0))
SECOND = (body(1, "node2"), state(1, results=[result()]))


def judged(*pods: Said, nodes: Sequence[str] | None = NODES) -> list[Check]:
    return list(judge_two([(pod, read_report(said)) for pod, said in pods], OPTIONS, nodes))


def bad(*pods: Said, nodes: Sequence[str] | None = NODES) -> dict[str, str]:
    return {check.name: check.evidence for check in judged(*pods, nodes=nodes) if not check.good}


def second(**more: Any) -> Said:
    return body(1, "node2"), state(1, results=[result(**more)])


def test_two_pods_that_reach_each_other() -> None:
    checks = judged(FIRST, SECOND)
    assert {check.result for check in checks} == {"ok"}
    assert "9000 bytes in both directions between node1 and node2" in checks[-1].evidence


def test_what_is_wrong_is_named() -> None:
    narrow = bad(FIRST, second(reached=False, problem="no answer to packets of 9000 bytes"))
    assert "no answer to packets of 9000 bytes (MTU 9000 and 9000)" in narrow["full size, both ways, net1"]
    stale = bad((body(0, "node1", "fd00::99"), state(0)), SECOND)
    assert "network-status has fd00::99, but the kernel fd00::1" in stale["addresses"]
    without = bad((body(0, "node1"), state(0, interfaces=["eth0"])), SECOND)
    assert "verify-0 on node1 has eth0" in without["interfaces"]
    killed = bad(FIRST, (SECOND[0], {"problem": "Killed"}))
    assert "Killed" in killed["full size, both ways, net1"]


@pytest.mark.parametrize(
    ("nodes", "result"), [(("node1", "node2"), "fail"), (("node1",), "unknown"), (None, "unknown")]
)
def test_two_pods_on_one_node_do_not_test_the_network(nodes: Sequence[str] | None, result: str) -> None:
    """It is a fault only where they had another node."""
    same = (body(1, "node1"), SECOND[1])
    placement, *others = judged(FIRST, same, nodes=nodes)
    assert (placement.name, placement.result) == ("test pods", result)
    assert {check.result for check in others} == {"ok"}


def test_a_network_card_without_a_link_is_the_only_thing_that_is_named() -> None:
    cut = (body(1, "node2"), state(1, blocked="net1 has no carrier"))
    assert bad(FIRST, cut) == {"link": "verify-1 on node2: net1 has no carrier"}


@pytest.mark.parametrize("value", [None, 7.5, "x\x1b[2J", ["\x1b[2J"], [[1]], {"a": 1}, True, 10**30, -1])
def test_what_pods_say_is_typed_before_it_is_shown(value: Any) -> None:
    for field in ("interfaces", "rails", "results", "problem", "blocked"):
        said = state(1, results=[result()]) | {field: value}
        for check in judged((body(0, "node1"), state(0) | {field: value}), (body(1, "node2"), said)):
            assert check.evidence.isprintable()
    for field in ("addresses", "mtu"):
        odd = state(1, results=[result()])
        odd["rails"]["net1"][field] = value
        for check in judged(FIRST, (body(1, "node2"), odd)):
            assert check.evidence.isprintable()
    for field in ("partner", "rail", "reached", "size", "problem", "there", "back"):
        for check in judged(FIRST, second(**{field: value})):
            assert check.evidence.isprintable()
    unreadable = bad(FIRST, second(size=value))
    assert unreadable == {"full size, both ways, net1": "no result (MTU 9000 and 9000)"}


def test_a_pod_that_told_nothing_is_shown_with_its_last_words() -> None:
    found = bad((body(0, "node1"), {"problem": "no such file\x07"}), SECOND)
    assert found["interfaces"] == "verify-0 on node1 reported nothing: no such file\\x07"


def test_a_pod_without_a_status_is_told_with_its_node() -> None:
    without = {"metadata": {"name": "verify-0", "annotations": {}}, "spec": {"nodeName": "node1"}}
    with pytest.raises(NetworkError, match="node1"):
        judged((without, state(0)), SECOND)


def test_the_wording_of_the_checks() -> None:
    unreached = second(reached=False, problem="no answer to packets of 9000 bytes")
    same = (body(1, "node1"), SECOND[1])
    blocked = (body(1, "node2"), state(1, blocked="net1 has no carrier"))
    configurations: list[object] = [GOOD, WITHOUT, [], {**GOOD, "cniVersion": "0.2.0"}]
    checks = [
        check_nodes(choose([], {}, []), {}),
        check_nodes(NodeChoice(NODES, {"node3": "not Ready"}), {}),
        *(
            check
            for config in configurations
            for check in check_configuration("attachment ml/net", Definition("ml", "net", json.dumps(config)))
        ),
        *judged(FIRST, SECOND),
        *judged((body(0, "node1", "fd00::99"), state(0)), unreached),
        *judged(FIRST, same, nodes=("node1",)),
        *judged(FIRST, same, nodes=None),
        *judged((body(0, "node1"), state(0, interfaces=["eth0"])), (body(1, "node2"), {})),
        *judged(FIRST, blocked),
    ]
    text = [
        f"{check.result}  {check.name}: {check.evidence}"
        + (f"\n  {check.fix}" if check.result != "ok" else "")
        for check in checks
    ]
    other = NetworkAttachment("ml", "another", "net1")
    for pod, network in (
        ({"metadata": {"name": "verify-0"}, "spec": {"nodeName": "node1"}}, NETWORK),
        (FIRST[0], other),
    ):
        with pytest.raises(NetworkError) as caught:
            address_of(pod, network)
        text.append(str(caught.value))
    golden.check("k8s-verify.txt", "\n".join(text))
