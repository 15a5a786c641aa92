"""The backend's attachment: its CNI configurations, and the nodes' parts of its range."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from tests.unit.manifested import CASES, IDS, SLICES, Object, containers, objects
from torchnet.manifests.options import BACKEND


def configurations(all_objects: list[Object]) -> list[Object]:
    """The CNI configurations of a manifest, of the attachment itself and of the nodes' files."""
    texts = [body["spec"]["config"] for body in all_objects if "config" in body.get("spec", {})]
    for body in all_objects:
        if body["kind"] == "ConfigMap":
            texts += [text for key, text in body["data"].items() if key.endswith(".conflist")]
    return [json.loads(text) for text in texts]


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_every_configuration_gives_a_network_status_entry(name: str, given: dict[str, Any]) -> None:
    found = configurations(objects(name, given))
    assert bool(found) == (name == BACKEND)
    for configuration in found:
        assert tuple(int(part) for part in configuration["cniVersion"].split(".")) >= (0, 3, 1)
        assert configuration["name"] == given.get("name", "backend-network")
        main, *others = configuration["plugins"]
        assert main["type"] == given.get("kind", "ipvlan")
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
    assert list(files["data"]) == ["node1.conflist", "node2.example.conflist"]
    variables = {one["name"]: one.get("value") for one in next(containers(daemon))["env"]}
    assert variables["SOURCE"] == "/slices/$(NODE_NAME).conflist"
    assert variables["TARGET"] == "/host/etc/cni/multus/net.d/rail-2.conflist"
