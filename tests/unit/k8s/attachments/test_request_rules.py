"""The annotation of pods: what Multus, or the plugin behind it, refuses or ignores."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.attachments import HOST_LOCAL, TUNING, config, definition, plugin
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.lint import Lint, lint
from torchnet.k8s.attachments.request_rules import Request

WIDE = {"type": "whereabouts", "range": "fcbb:0:800:fff0::/60"}
GOOD = {"name": "net", "interface": "net1"}
IPS: dict[str, Any] = {"capabilities": {"ips": True}}
STATIC = plugin(ipam={"type": "static"}, **IPS)


def asked(
    text: object, main: dict[str, Any] | None = None, *, namespace: str = "ml", complete: bool = True
) -> Lint:
    """What is found in a pod's annotation beside one attachment, ml/net."""
    request = Request("Pod p", namespace, text if isinstance(text, str) else json.dumps(text))
    return lint([definition(config(main))], [request], concerns=[], is_complete=lambda _: complete)


def fields(found: Lint) -> list[str]:
    marks = {"fault": "", "warning": "~"}
    return [("!" if one.blocks else marks[one.level]) + one.field for one in found.findings]


@pytest.mark.parametrize(
    "text",
    [
        "net@net1",
        "ml/net@net1",
        " ml/net@net1 , net@net2",
        [GOOD],
        *([GOOD | {"mac": mac}] for mac in ("02:00:00:00:00:01", "02-00-00-00-00-01", "0200.0000.0001")),
        [GOOD | {"infiniband-guid": "02:00:00:00:00:00:00:01"}],
        [GOOD | {"bandwidth": {"ingressRate": 9, "ingressBurst": 9}}],
        [GOOD, {"name": "net", "interface": "net2"}],
        [],
    ],
)
def test_what_works_has_no_findings(text: object) -> None:
    assert fields(asked(text)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[{", ["!"]),
        ('[{"name": "net" "interface": "net1"}]', ["!"]),
        ('"net"', ["!"]),
        (GOOD, ["!"]),
        ([7], ["!"]),
        ("net", ["~[0].interface"]),
        ([{"interface": "net1"}], ["![0].name"]),
        ("ml/Net@net1", ["![0].name", "![0].name"]),
        ([GOOD | {"namespace": "a/b"}], ["![0].namespace", "![0].name"]),
        ([GOOD | {"interface": "a-name-that-is-too-long"}], ["![0].interface"]),
        ([GOOD | {"interface": "a b"}], ["![0].interface"]),
        ([GOOD, GOOD], ["![0].interface", "![1].interface"]),
        *(([GOOD | {"mac": mac}], ["![0].mac"]) for mac in ("02:00", "02:00:00:00:00-01")),
        ([GOOD | {"mac": 7}], ["![0].mac"]),
        ([GOOD | {"infiniband-guid": "02:00"}], ["![0].infiniband-guid"]),
        *(([GOOD | {"interface": name}], ["![0].interface"]) for name in ("eth0", "lo")),
        ("net.a@net1", ["![0].name", "![0].name"]),
        ([GOOD | {"name": "net.a"}], ["![0].name"]),  # which does not exist
        ([GOOD | {"name": "net..a"}], ["![0].name", "![0].name"]),
        ("other@net1", ["![0].name"]),
        ("elsewhere/net@net1", ["![0].name"]),
        ([GOOD | {"ips": "fd00::1/64"}], ["![0].ips"]),
        ([GOOD | {"ips": ["x"]}], ["![0].ips[0]", "[0].ips"]),
        ([GOOD | {"ips": ["fd00::1"]}], ["![0].ips[0]", "[0].ips"]),
    ],
)
def test_a_fault_is_found_with_its_field(text: object, found: list[str]) -> None:
    assert fields(asked(text)) == found


def test_malformed_json_is_named_with_its_place() -> None:
    (one,) = asked('[{"name": "net",\n "interface" "net1"}]').findings
    assert "line 2, column 14" in one.text


def test_an_attachment_that_may_exist_is_no_fault() -> None:
    assert fields(asked("other@net1", complete=False)) == []


def test_addresses_reach_a_plugin_that_declares_them() -> None:
    request = [GOOD | {"ips": ["fd00::1/64"]}]
    assert fields(asked(request, STATIC)) == []
    assert fields(asked(request, plugin(ipam={"type": "static"}))) == ["[0].ips"]
    assert fields(asked(request)) == ["[0].ips"], "Whereabouts allocates another one"
    assert "another pod" in asked(request).findings[0].consequence
    assert fields(asked([GOOD | {"ips": ["10.9.0.7"]}], plugin(ipam=HOST_LOCAL, **IPS))) == []
    assert fields(asked([GOOD], STATIC)) == ["![0].ips"]


@pytest.mark.parametrize(
    ("ips", "found"),
    [
        (["10.9.0.7"], []),
        (["10.9.0.7/24"], []),
        (["10.9.0.7", "10.9.0.8"], ["![0].ips"]),
        (["10.8.0.7"], ["![0].ips"]),
        (["10.9.0.1"], ["![0].ips"]),  # the gateway
    ],
)
def test_host_local_gives_one_address_of_its_own(ips: list[str], found: list[str]) -> None:
    assert fields(asked([GOOD | {"ips": ips}], plugin(ipam=HOST_LOCAL, **IPS))) == found


def test_the_ranges_of_other_nodes_are_not_known() -> None:
    files = {"node1": json.dumps(config(plugin(ipam=HOST_LOCAL, **IPS)))}
    request = Request("Pod p", "ml", json.dumps([GOOD | {"ips": ["10.9.7.7"]}]))
    assert lint([Definition("ml", "net", "", files)], [request], concerns=[]).findings == ()


def test_bandwidth_needs_a_veth_interface() -> None:
    request = Request("Pod p", "ml", json.dumps([GOOD | {"bandwidth": {"egressRate": 9}}]))
    shaped = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    for kind, chained, found in (
        ("ipvlan", shaped, ["![0].bandwidth"]),
        ("bridge", shaped, []),
        ("ipvlan", {"type": "bandwidth"}, []),
    ):
        body = config(plugin(kind), TUNING, chained)
        assert fields(lint([definition(body)], [request], concerns=[])) == found
    idle = Request("Pod p", "ml", json.dumps([GOOD | {"bandwidth": {"egressRate": 0}}]))
    assert fields(lint([definition(config(plugin(), TUNING, shaped))], [idle], concerns=[])) == []


def test_requested_ipv6_addresses_need_advertisements_turned_off() -> None:
    request = Request("Pod p", "ml", json.dumps([GOOD | {"ips": ["fd00::1/64"]}]))
    untuned = definition(config(STATIC, {"type": "tuning"}))
    assert fields(lint([untuned], [request], concerns=[])) == ["~[0].ips"]
    v4 = Request("Pod p", "ml", json.dumps([GOOD | {"ips": ["10.9.0.1/24"]}]))
    assert fields(lint([untuned], [v4], concerns=[])) == []


@pytest.mark.parametrize(
    ("text", "main", "corrected"),
    [
        (GOOD, None, [GOOD]),
        ("net", None, [GOOD]),
        ([GOOD | {"ips": ["fd00::1"]}], STATIC, [GOOD | {"ips": ["fd00::1/64"]}]),
        (
            [GOOD | {"ips": ["fcbb:0:800:fff0::50"]}],
            plugin(ipam=WIDE),
            [GOOD | {"ips": ["fcbb:0:800:fff0::50/60"]}],
        ),
        ([GOOD | {"ips": ["10.9.0.7"]}], STATIC, None),
    ],
)
def test_the_correction(text: object, main: dict[str, Any] | None, corrected: object) -> None:
    assert asked(text, main).corrections.get("Pod p") == corrected
