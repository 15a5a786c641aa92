"""The backend's attachment: its CNI configurations, and the nodes' parts of its range."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import pytest
import yaml

from tests.unit.manifested import CASES, IDS, SLICES, Object, containers, file_of, nodes_of, objects
from torchnet.cli import main
from torchnet.errors import UsageError
from torchnet.k8s.addons import node_ranges
from torchnet.k8s.addons.addon_options import BACKEND, parse
from torchnet.k8s.addons.catalog import render


def configurations(all_objects: list[Object]) -> list[Object]:
    """The CNI configurations of a manifest, of the attachment itself and of the nodes' files."""
    texts = [body["spec"]["config"] for body in all_objects if "config" in body.get("spec", {})]
    for body in all_objects:
        if body["kind"] == "ConfigMap":
            texts += (
                [file_of(body, node) for node in nodes_of(body)] if node_ranges.NODES in body["data"] else []
            )
    return [json.loads(text) for text in texts]


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_every_configuration_gives_a_network_status_entry(name: str, given: dict[str, Any]) -> None:
    found = configurations(objects(name, given))
    assert bool(found) == (name == BACKEND)
    for configuration in found:
        assert tuple(int(part) for part in configuration["cniVersion"].split(".")) >= (0, 3, 1)
        assert configuration["name"] == given.get("name", "backend-network")
        main, *others = configuration["plugins"]
        assert main["type"] == given.get("type", "ipvlan")
        assert "enable_ipv6" not in json.dumps(configuration)
        for range_ in ranges(main["ipam"]):
            assert str(ipaddress.ip_network(range_)) == range_
        assert main.get("capabilities") == ({"ips": True} if given.get("ipam") == "static" else None)
        version = ipaddress.ip_network(given.get("range", "fcbb::/64")).version
        sysctl = {"net.ipv6.conf.IFNAME.accept_ra": "0", "net.ipv6.conf.IFNAME.ndisc_notify": "1"}
        assert others == ([{"type": "tuning", "sysctl": sysctl}] if version == 6 else [])


def ranges(ipam: Object) -> list[str]:
    subnets = [one["subnet"] for ranges_ in ipam.get("ranges", []) for one in ranges_]
    routes = [route["dst"] for route in ipam.get("routes", [])]
    whole = [ipam["range"]] if "range" in ipam else []
    return [*whole, *ipam.get("exclude", []), *subnets, *routes]


def test_addresses_of_the_nodes_parts_never_meet() -> None:
    for mode in ("l2", "l3"):
        used = []
        for configuration in configurations(objects(BACKEND, {"mode": mode, "slices": SLICES})):
            ((one,),) = configuration["plugins"][0]["ipam"]["ranges"]
            subnet = ipaddress.IPv6Network(one["subnet"])
            first = ipaddress.IPv6Address(one.get("rangeStart", subnet[1]))
            last = ipaddress.IPv6Address(one.get("rangeEnd", subnet[-1]))
            assert first in subnet
            assert last in subnet
            used.append((int(first), int(last)))
        (_, before), (after, _) = sorted(used)
        assert before < after


def test_in_l2_all_pods_are_on_one_link_and_in_l3_a_route_leads_to_the_others() -> None:
    flat, routed = (
        configurations(objects(BACKEND, {"mode": mode, "slices": SLICES})) for mode in ("l2", "l3")
    )
    for configuration in flat:
        ipam = configuration["plugins"][0]["ipam"]
        assert ipam["ranges"][0][0]["subnet"] == "fcbb:0:800:ffff::/64"
        assert "routes" not in ipam
    subnets = []
    for configuration in routed:
        ipam = configuration["plugins"][0]["ipam"]
        assert ipam["routes"] == [{"dst": "fcbb:0:800:ffff::/64"}]
        subnets.append(ipam["ranges"][0][0]["subnet"])
    assert subnets == [part.partition("=")[2] for part in SLICES]


APART = ["node1=fcbb:0:800:1::/64", "node2=fcbb:0:800:2::/64"]


@pytest.mark.parametrize(
    ("slices", "whole"),
    [
        (APART, "fcbb:0:800::/62"),
        ([*APART, "node3=fcbb:0:800:9::/64"], "fcbb:0:800::/60"),
        (APART[:1], "fcbb:0:800:1::/64"),
        (["a=10.0.0.0/24", "b=10.0.3.0/24"], "10.0.0.0/22"),
        (SLICES, "fcbb:0:800:ffff::/64"),  # within the default
    ],
)
def test_without_a_range_it_is_the_smallest_that_holds_all_parts(slices: list[str], whole: str) -> None:
    options = parse(BACKEND, {"mode": "l3", "slices": slices})
    assert str(options.range) == whole
    (found,) = {
        json.dumps(one["plugins"][0]["ipam"]["routes"])
        for one in configurations(objects(BACKEND, {"mode": "l3", "slices": slices}))
    }
    assert json.loads(found) == [{"dst": whole}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"range": "fd00::/64", "slices": APART}, "valid: --range fcbb:0:800::/62"),
        ({"slices": ["a=10.0.0.0/24", "b=fcbb:0:800:2::/64"]}, "is not within the range"),
        ({"slices": ["a=10.0.0.0/24", "b=192.168.0.0/24"]}, "is not within the range"),  # 0.0.0.0/0
    ],
)
def test_a_range_that_does_not_hold_all_parts_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(BACKEND, {"mode": "l3"} | given)


GATEWAYS = [f"{one},via=fcbb::{number}" for number, one in enumerate(SLICES, 11)]


def test_with_gateways_the_daemon_set_adds_the_routes_that_the_head_shows() -> None:
    for mode in ("l3", "l3s"):
        options = parse(BACKEND, {"mode": mode, "slices": GATEWAYS})
        manifests, head = render(BACKEND, options)
        _, files, daemon = (dict(manifest.body) for manifest in manifests)
        assert "The DaemonSet adds these routes" in head
        for part, gateway in (one.partition("=")[2].split(",via=") for one in GATEWAYS):
            assert f"ip -6 route replace {part} via {gateway} dev ens5" in head
            assert any(line.split()[1:] == [part, gateway] for line in files["data"]["nodes"].splitlines())
        (container,) = containers(daemon)
        assert "ip " in container["command"][2]
        assert {one["name"]: one.get("value") for one in container["env"]}["CARD"] == "ens5"
        # The file itself is the same as without them.
        without = objects(BACKEND, {"mode": mode, "slices": SLICES})
        assert files["data"]["template.conflist"] == without[1]["data"]["template.conflist"]
        assert "ip " not in next(containers(without[2]))["command"][2]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slices": GATEWAYS}, "via= is for --mode l3"),
        (
            {"mode": "l3", "slices": [f"{one},via=fcbb::11" for one in SLICES]},
            "via=fcbb::11 is given for node1, node2.example; valid: each node's own address",
        ),
        ({"mode": "l3", "slices": [GATEWAYS[0], SLICES[1]]}, "no via= for node2"),
        ({"mode": "l3", "slices": [f"{SLICES[0]},via=10.0.0.1", GATEWAYS[1]]}, "different address families"),
        (
            {"mode": "l3", "slices": [f"{SLICES[0]},via={SLICES[1].partition('=')[2][:-3]}9", GATEWAYS[1]]},
            "pods; valid",
        ),
    ],
)
def test_gateways_that_cannot_work_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(BACKEND, given)


def test_an_ipv4_part_leaves_out_what_is_no_address() -> None:
    given = {"range": "10.0.0.0/24", "slices": ["a=10.0.0.0/25", "b=10.0.0.128/25"]}
    ends = [
        (one["rangeStart"], one["rangeEnd"])
        for configuration in configurations(objects(BACKEND, given))
        for ((one,),) in [configuration["plugins"][0]["ipam"]["ranges"]]
    ]
    assert ends == [("10.0.0.1", "10.0.0.127"), ("10.0.0.129", "10.0.0.254")]


def test_an_attachment_with_parts_has_no_spec_and_the_files_its_name() -> None:
    attachment, files, daemon = objects(BACKEND, {"name": "rail-2", "slices": SLICES})
    assert "spec" not in attachment
    assert nodes_of(files) == ["node1", "node2.example"]
    variables = {one["name"]: one.get("value") for one in next(containers(daemon))["env"]}
    (mounted,) = [one for one in next(containers(daemon))["volumeMounts"] if one["name"] == "slices"]
    assert variables["SLICES"] == mounted["mountPath"]
    assert variables["TARGET"] == "/host/etc/cni/multus/net.d/rail-2.conflist"


def many(count: int) -> list[str]:
    """Parts for so many nodes, which are called as a cloud calls them."""
    return [
        f"ip-10-0-{n // 250}-{n % 250}.eu-central-1.compute.internal=fcbb:0:800:ffff:{n + 1:x}::/80"
        for n in range(count)
    ]


def printed(capsys: pytest.CaptureFixture[str], parts: list[str]) -> tuple[int, str, str]:
    code = main(["manifests", BACKEND, *(word for part in parts for word in ("--slice", part))])
    return code, *capsys.readouterr()


def test_parts_for_1700_nodes_pass_through_kubectl_apply(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, said = printed(capsys, many(1700))
    assert (code, said) == (0, "")
    _, files, _ = yaml.safe_load_all(text)
    # kubectl apply keeps the object as JSON in an annotation, and all annotations have 262,144 bytes together.
    assert len(json.dumps(files, separators=(",", ":"))) < 200_000
    node, _, part = many(1700)[1234].partition("=")
    (pool,) = json.loads(file_of(files, node))["plugins"][0]["ipam"]["ranges"]
    first, last = (ipaddress.IPv6Address(pool[0][key]) for key in ("rangeStart", "rangeEnd"))
    network = ipaddress.IPv6Network(part)
    assert (first, last) == (network[1], network[-1])


def test_more_than_kubectl_apply_takes_is_told_and_more_than_a_configmap_holds_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, text, said = printed(capsys, many(4000))
    assert (code, len(list(yaml.safe_load_all(text)))) == (0, 3)
    assert re.fullmatch(
        r"torchnet: ConfigMap kube-system/backend-network-slices has 4[0-9]{2},[0-9]{3} bytes, "
        r"and kubectl apply takes 261,888: kubectl apply --server-side -f -\n",
        said,
    )
    code, text, said = printed(capsys, many(11_000))
    assert (code, text) == (2, "")
    assert re.search(r"would hold 1,[0-9]{3},[0-9]{3} bytes, and a ConfigMap holds 1,048,576", said)
    assert "--name" in said
