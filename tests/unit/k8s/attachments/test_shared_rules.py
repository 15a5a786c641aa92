"""What two attachments, or the nodes of one, cannot share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.attachments import HOST_LOCAL, Body, config, definition, linted, plugin
from torchnet.k8s.addons import network_attachment
from torchnet.k8s.addons.addon_options import BACKEND, parse
from torchnet.k8s.attachments.definition import Definition, read_definition
from torchnet.k8s.attachments.lint import lint

V4 = {"type": "whereabouts", "range": "10.9.0.0/24"}
OTHER = {"type": "whereabouts", "range": "10.10.0.0/24"}


def between(one: Body, other: Body) -> list[str]:
    """The findings that neither of the two has alone."""
    alone = [finding.sentence for body in (one, other) for finding in linted(body).findings]
    return [finding.sentence for finding in linted(one, other).findings if finding.sentence not in alone]


def test_ipvlan_and_macvlan_on_one_interface() -> None:
    one, other = config(plugin("macvlan", ipam=V4)), config(plugin("ipvlan", ipam=OTHER))
    (sentence,) = between(one, other)
    assert "ipvlan on ens5, which has macvlan in ml/net0" in sentence
    assert "busy" in sentence
    assert between(one, config(plugin("ipvlan", ipam=OTHER, master="ens6"))) == []
    assert between(one, config(plugin("macvlan", ipam=OTHER, mode="vepa"))) == [], (
        "macvlan's mode is the slave's own"
    )


def test_two_modes_of_ipvlan_on_one_interface() -> None:
    one, other = config(plugin(ipam=V4)), config(plugin(ipam=OTHER, mode="l3"))
    (sentence,) = between(one, other)
    assert "l3 on ens5, which has l2 in ml/net0" in sentence
    (finding,) = [one for one in linted(one, other).findings if one.sentence == sentence]
    assert (finding.changes, "one mode for both" in finding.fix) == ((), True), (
        "which of the two is the user's choice"
    )
    assert between(one, config(plugin(ipam=OTHER))) == []


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (V4, V4, False),
        (V4, V4 | {"range": "10.9.0.128/25"}, False),
        (V4, OTHER, False),
        (V4, HOST_LOCAL, True),
        (HOST_LOCAL, HOST_LOCAL, True),
        (V4, V4 | {"network_name": "b"}, True),
        (V4 | {"enable_overlapping_ranges": False}, V4 | {"range": "10.9.0.128/25"}, True),
        (V4 | {"enable_overlapping_ranges": False}, V4, False),  # one pool
        (V4 | {"enable_overlapping_ranges": False}, V4 | {"ipRanges": [{"range": "10.8.0.0/24"}]}, False),
        (
            V4 | {"enable_overlapping_ranges": False},
            V4 | {"ipRanges": [{"range": "10.9.0.0/16"}]},
            True,
        ),
        (V4 | {"range_end": "10.9.0.99"}, V4 | {"network_name": "b", "range_start": "10.9.0.100"}, False),
    ],
)
def test_overlapping_ranges_of_ipams_that_do_not_know_of_each_other(
    one: Body, other: Body, found: bool
) -> None:
    second = config(plugin(ipam=other), name="other")
    assert ["same address" in sentence for sentence in between(config(plugin(ipam=one)), second)] == [
        True
    ] * found


@pytest.mark.parametrize(
    ("name", "folder", "found"),
    [("other", None, True), ("net", "/var/lib/cni/networks", False), ("net", "/var/lib/cni/b", True)],
)
def test_host_local_keeps_its_allocations_by_the_configurations_name(
    name: str, folder: str | None, found: bool
) -> None:
    """Also under two attachments, such as those of two namespaces whose configuration is one file on the nodes."""
    second = config(plugin(ipam=HOST_LOCAL | ({"dataDir": folder} if folder else {})), name=name)
    assert bool(between(config(plugin(ipam=HOST_LOCAL)), second)) is found
    unnamed = config(plugin(ipam=HOST_LOCAL), name=None)
    both = [definition(unnamed, namespace=namespace) for namespace in ("ml", "research")]
    assert [one.field for one in lint(both, nodes=["node1"]).findings] == [], (
        "Multus gives them their own name"
    )


def test_only_the_attachments_of_a_namespace_are_reported_on() -> None:
    own, other = config(plugin(ipam=V4)), config(plugin("macvlan", ipam=HOST_LOCAL))
    definitions = [definition(own), definition(other, "a", "a"), definition(other, "z", "z")]
    found = lint(definitions, concerns=["ml/net"])
    assert found.checked == ("ml/net",)
    assert {one.where for one in found.findings} == {"ml/net"}
    assert sum("busy" in one.sentence for one in found.findings) == 2


# -- a file on each node -----------------------------------------------------------------------------------------


def sliced(**given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attachment and the ConfigMap that torchnet renders."""
    bodies = [one.body for one in network_attachment.manifests(parse(BACKEND, given))]
    return dict(bodies[0]), dict(bodies[1])


SLICES = ["node1=fcbb:0:800:ffff:1::/80", "node2=fcbb:0:800:ffff:2::/80"]
ROUTED = {
    "mode": "l3",
    "range": "fcbb:0:800::/48",
    "slices": ["node1=fcbb:0:800:1::/64", "node2=fcbb:0:800:2::/64"],
}


def read(body: dict[str, Any], config_map: dict[str, Any]) -> Definition:
    return read_definition(body, {config_map["metadata"]["name"]: config_map})


@pytest.mark.parametrize("given", [{"slices": SLICES}, ROUTED, {**ROUTED, "mode": "l3s"}])
def test_the_files_of_nodes_that_torchnet_renders_have_no_findings(given: dict[str, Any]) -> None:
    found = read(*sliced(**given))
    assert list(found.node_configs) == ["node1", "node2"]
    assert "@" not in "".join(found.node_configs.values())
    assert lint([found], nodes=["node1", "node2"]).findings == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("node2 fcbb:0:800:2::/64", "node2 fcbb:0:800:1::/64", "the ranges of node1 and node2 overlap"),
        ("node2 fcbb:0:800:2::/64", "node2 fcbb:0:801:2::/64", "no route on node1 to the range of node2"),
        ("node2 fcbb:0:800:2::/64", "node2 x", "host-local refuses it"),
        ("node2 fcbb:0:800:2::/64", 'node2 "', "not JSON"),
        ('"name": "backend-network"', '"name": "other"', "Multus finds no file of the attachment's name"),
    ],
)
def test_a_fault_between_the_files(before: str, after: str, said: str) -> None:
    body, config_map = sliced(**ROUTED)
    (key,) = [key for key, text in config_map["data"].items() if before in text]
    config_map["data"][key] = config_map["data"][key].replace(before, after)
    found = lint([read(body, config_map)])
    assert said in "; ".join(one.sentence for one in found.faults)
    assert found.corrections == {}, "the files come from a template"


def test_without_a_route_other_nodes_are_reached_over_the_frontend() -> None:
    body, config_map = sliced(**ROUTED)
    config_map["data"]["template.conflist"] = config_map["data"]["template.conflist"].replace(
        "fcbb:0:800::/48", "fcbb:1::/48"
    )
    (one,) = lint([read(body, config_map)]).findings
    assert one.field == "ipam.routes"
    assert "frontend" in one.consequence


def test_nodes_without_a_file_are_named() -> None:
    found = read(*sliced(**ROUTED))
    (one,) = lint([found], nodes=["node1", "node2", "node3"]).findings
    assert (one.level, "node3" in one.text) == ("warning", True)
    late = Definition(found.namespace, found.name, "", found.node_configs, nodes_without_file=("node2",))
    (one,) = lint([late], nodes=["node1", "node2"]).faults
    assert "missing or old on node2" in one.text


def test_a_file_of_a_node_needs_the_name_that_multus_looks_for() -> None:
    body = json.dumps(config(plugin(ipam=HOST_LOCAL), name=None))
    found = lint([Definition("", "net.conflist", body, in_file=True)])
    assert [one.field for one in found.faults] == ["name"], "and its range is its own"


def test_an_attachment_whose_files_are_unknown_is_named() -> None:
    found = lint([Definition("ml", "net")])
    assert found.findings == ()
    assert found.skipped == (
        "ml/net has no spec: Multus reads a file on each node, which only the nodes have",
    )


# -- files of several nodes ----------------------------------------------------------------------------------------


def of_nodes(
    *ipams: Body, names: tuple[str, ...] = ("n1/x.conflist", "n2/x.conflist"), **more: Any
) -> list[str]:
    """The fields of faults between files."""
    files = [
        Definition("", name, json.dumps(config(plugin(ipam=ipam, **more))), in_file=True)
        for name, ipam in zip(names, ipams, strict=True)
    ]
    alone = [one.sentence for file in files for one in lint([file]).findings]
    return [f"{one.where} {one.sentence}" for one in lint(files).findings if one.sentence not in alone]


def subnet(network: str, *routes: str) -> Body:
    return {"type": "host-local", "subnet": network, "routes": [{"dst": one} for one in routes]}


def test_two_files_of_one_name_are_those_of_two_nodes() -> None:
    (found,) = of_nodes(HOST_LOCAL, HOST_LOCAL)
    assert found.startswith(
        "n2/x.conflist ipam: the ranges of n1/x.conflist and n2/x.conflist overlap; two nodes allocate"
    )
    one, other = (subnet(f"10.9.{n}.0/24", "10.9.0.0/16") for n in (1, 2))
    assert of_nodes(one, other) == []
    (found,) = of_nodes(one, subnet("10.8.0.0/24"))
    assert "no route on" in found


def test_nodes_may_share_a_range_of_whereabouts_and_differ_in_nothing_else() -> None:
    assert of_nodes(V4, V4) == []
    assert of_nodes(HOST_LOCAL, HOST_LOCAL, names=("n1/x.conflist", "n1/y.conflist")) == []
