"""torchnet verify's judgement: of an attachment's configuration, and of what two test pods said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import golden
from tests.unit.pod_security import restricted
from torchnet.config.pod_user import DEFAULT_USER, PodUser
from torchnet.errors import NetworkError
from torchnet.k8s.verify.checks import Check, address_of, check_configuration, check_nodes, judge
from torchnet.k8s.verify.pods import pod, scripts

NETWORK = ("ml", "backend-network")
GOOD = {"cniVersion": "1.0.0", "type": "macvlan", "master": "ens5", "ipam": {"type": "whereabouts"}}


@pytest.mark.parametrize(
    ("config", "good", "said"),
    [
        (GOOD, True, "macvlan on ens5, addresses by whereabouts, cniVersion 1.0.0"),
        ({**GOOD, "cniVersion": "0.3.1"}, True, "0.3.1"),
        ({"cniVersion": "1.0.0", "plugins": [{"type": "ipvlan", "master": "ens5"}]}, True, "ipvlan on ens5"),
        ({**GOOD, "cniVersion": "0.2.0"}, False, "no network-status"),
        ({key: value for key, value in GOOD.items() if key != "cniVersion"}, False, "no network-status"),
        ({"cniVersion": "1.0.0", "ipam": {}}, False, "no type"),
        ([], False, "JSON object"),
        ({**GOOD, "cniVersion": "one"}, False, "'one'"),
    ],
)
def test_an_attachments_configuration(config: object, good: bool, said: str) -> None:
    found = check_configuration("attachment", json.dumps(config))
    assert (found.good, said in found.evidence) == (good, True), found
    assert good or found.fix


def tried(index: int, node: str, address: str = "", **said: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    address = address or f"fd00::{index + 1}"
    status = [
        {"name": "cbr0", "interface": "eth0", "ips": ["10.0.0.5"], "default": True},
        {"name": "ml/backend-network", "interface": "net1", "ips": [address]},
    ]
    meta = {
        "name": f"verify-{index}",
        "annotations": {"k8s.v1.cni.cncf.io/network-status": json.dumps(status)},
    }
    body = {"interfaces": ["eth0", "lo", "net1"], "addresses": [f"fd00::{index + 1}"], "mtu": 9000}
    return {"metadata": meta, "spec": {"nodeName": node}}, body | said


def bad(*pods: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, str]:
    return {check.name: check.evidence for check in judge(pods, NETWORK, True) if not check.good}


def test_two_pods_that_reach_each_other() -> None:
    pods = tried(0, "node1"), tried(1, "node2", reached=True, size=9000)
    checks = list(judge(pods, NETWORK, True))
    assert all(check.good for check in checks)
    assert "9000 bytes in both directions between node1 and node2" in checks[-1].evidence


def test_what_is_wrong_is_named() -> None:
    first, second = tried(0, "node1"), tried(1, "node2", reached=True, size=9000)
    assert "test pods" in bad(first, tried(1, "node1", reached=True, size=9000))
    narrow = bad(first, tried(1, "node2", reached=False, problem="no answer to packets of 9000 bytes"))
    assert "no answer to packets of 9000 bytes (MTU 9000 and 9000)" in narrow["full size, both ways"]
    stale = bad(tried(0, "node1", "fd00::99"), second)
    assert "network-status has fd00::99, but the kernel fd00::1" in stale["addresses"]
    assert "verify-0 on node1 has eth0" in bad(tried(0, "node1", interfaces=["eth0"]), second)["interfaces"]
    assert "Killed" in bad(first, (second[0], {"problem": "Killed"}))["full size, both ways"]


def test_a_network_card_without_a_link_is_the_only_thing_that_is_named() -> None:
    cut = {"blocked": "net1 has no carrier"}
    assert bad(tried(0, "node1", **cut)) == {"link": "verify-0 on node1: net1 has no carrier"}
    assert bad(tried(0, "node1"), tried(1, "node2", **cut)) == {
        "link": "verify-1 on node2: net1 has no carrier"
    }


@pytest.mark.parametrize("value", [None, 7.5, "x\x1b[2J", ["\x1b[2J"], [[1]], {"a": 1}, True, 10**30, -1])
def test_what_pods_say_is_typed_before_it_is_shown(value: Any) -> None:
    fields = ("interfaces", "addresses", "mtu", "reached", "size", "problem", "blocked")
    for field in fields:
        second = tried(1, "node2", **{"reached": True, "size": 9000, field: value})
        for check in judge((tried(0, "node1", **{field: value}), second), NETWORK, True):
            assert check.evidence.isprintable()
    odd = bad(tried(0, "node1"), tried(1, "node2", reached=True, size=value))
    assert odd == {"full size, both ways": "no result (MTU 9000 and 9000)"}


def test_a_pod_that_told_nothing_is_shown_with_its_last_words() -> None:
    found = bad(
        (tried(0, "node1")[0], {"problem": "no such file\x07"}), tried(1, "node2", reached=True, size=1)
    )
    assert found["interfaces"] == "verify-0 on node1 reported nothing: no such file\\x07"


def test_a_pod_without_a_status_is_told_with_its_node() -> None:
    without = {"metadata": {"name": "verify-0", "annotations": {}}, "spec": {"nodeName": "node1"}}
    with pytest.raises(NetworkError, match="node1"):
        list(judge([(without, tried(0, "node1")[1]), tried(1, "node2", reached=True)], NETWORK, True))


@pytest.mark.parametrize("user", [DEFAULT_USER, PodUser(None, None, None), PodUser(5001, 0, 7)], ids=str)
def test_the_pods_bear_the_label_and_meet_restricted(user: PodUser) -> None:
    words = ["ask", "29500", "fd00::1"]
    body = pod("verify-1", "ml", 1, network=NETWORK, image="x:1", user=user, apart=True, arguments=words)
    assert list(restricted(body["spec"])) == []
    context = body["spec"]["securityContext"]
    assert context.get("runAsUser") == user.uid
    assert context.get("fsGroup") == user.fs_group
    for one in (body, scripts("verify-1", "ml")):
        assert one["metadata"]["labels"]["torchnet.alt/run"] == "verify-1"
    container = body["spec"]["containers"][0]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]
    assert container["resources"]["requests"]
    assert body["spec"]["securityContext"]["runAsNonRoot"] is True
    assert body["spec"]["affinity"]["podAntiAffinity"]
    assert set(scripts("v", "ml")["data"]) == {"echo.py", "net.py"}


def test_the_wording_of_the_checks() -> None:
    first, second = tried(0, "node1"), tried(1, "node2", reached=True, size=9000)
    unreached = tried(1, "node2", reached=False, problem="no answer to packets of 9000 bytes")
    without = {key: value for key, value in GOOD.items() if key != "type"}
    configurations: list[object] = [GOOD, without, [], {**GOOD, "cniVersion": "0.2.0"}]
    checks: list[Check] = [
        check_nodes([]),
        check_nodes(["node1", "node2"]),
        *(check_configuration("attachment ml/net", json.dumps(config)) for config in configurations),
        *judge([first, second], NETWORK, True),
        *judge([tried(0, "node1", "fd00::99"), unreached], NETWORK, False),
        *judge([tried(0, "node1", interfaces=["eth0"]), tried(1, "node2", interfaces=[])], NETWORK, True),
        *judge([tried(0, "node1", blocked="net1 has no carrier")], NETWORK, True),
    ]
    text = [
        f"{'ok' if check.good else 'FAIL'}  {check.name}: {check.evidence}"
        + f"\n  {check.fix}" * (not check.good)
        for check in checks
    ]
    for body in ({"metadata": {"name": "verify-0"}, "spec": {"nodeName": "node1"}}, first[0]):
        with pytest.raises(NetworkError) as caught:
            address_of(body, ("ml", "another"))
        text.append(str(caught.value))
    golden.check("k8s-verify.txt", "\n".join(text))
