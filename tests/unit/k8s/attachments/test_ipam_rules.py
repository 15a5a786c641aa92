"""Faults of the IPAM plugin of an attachment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.attachments import HOST_LOCAL, WHEREABOUTS, config, fields, findings, linted, plugin

V4 = {"type": "whereabouts", "range": "10.9.0.0/24"}
FIRST_EXCLUDED = V4 | {"exclude": ["10.9.0.1/32"]}
STATIC = {"type": "static"}
IPS: dict[str, Any] = {"capabilities": {"ips": True}}


def whereabouts(**changes: Any) -> dict[str, Any]:
    return config(plugin(ipam={key: value for key, value in (V4 | changes).items() if value is not None}))


def host_local(*sets: Any, **changes: Any) -> dict[str, Any]:
    return config(plugin(ipam={"type": "host-local", "ranges": list(sets), **changes}))


@pytest.mark.parametrize(
    "body",
    [
        whereabouts(),
        whereabouts(range="10.09.0.0/24"),
        whereabouts(range="10.9.0.10-10.9.0.20/24"),
        whereabouts(
            range="10.9.0.7/24",
            range_start="10.9.0.5",
            range_end="10.9.0.9",
            exclude=["10.9.0.6", "10.9.0.8/31"],
        ),
        whereabouts(gateway="10.9.0.1", exclude=["10.9.0.1/32"]),
        whereabouts(gateway="10.8.0.1"),
        whereabouts(node_slice_size="/28"),
        whereabouts(
            log_file="/var/log/w.log", log_level="debug", Network_Name="a", enable_overlapping_ranges=True
        ),
        whereabouts(range=None, ipRanges=[{"range": "10.9.0.0/24"}, {"range": "fd00::/64"}]),
        whereabouts(range=None, addresses=[{"address": "10.9.0.1/24"}]),
        config(plugin(ipam={"type": "dhcp"})),
        config(plugin(ipam=STATIC, **IPS)),
    ],
)
def test_what_works_has_no_findings(body: object) -> None:
    assert findings(body) == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (config(plugin(ipam={})), ["!ipam"]),
        (config(plugin("macvlan", ipam={})), ["!ipam"]),
        (config(plugin("host-device", ipam={})), []),
        (config(plugin() | {"ipam": "whereabouts"}), ["!ipam"]),
        (config(plugin(ipam={"range": "10.0.0.0/24"})), ["!ipam.type"]),
        (config(plugin(ipam={"type": "calico-ipam"})), ["~ipam.type"]),
        (whereabouts(enable_ipv6=True), ["~ipam.enable_ipv6"]),
        (whereabouts(range=None), ["ipam.range"]),
        (whereabouts(range=7), ["!ipam.range", "ipam.range"]),
        (whereabouts(range="10.9.0.0"), ["!ipam.range"]),
        (whereabouts(range="10.9.0.0/255.255.255.0"), ["!ipam.range"]),
        (whereabouts(range="10.9.0.0/33"), ["!ipam.range"]),
        (whereabouts(range="10.8.0.1-10.9.0.9/24"), ["!ipam.range"]),
        (whereabouts(range="10.9.0.0/31"), ["!ipam.range"]),
        (whereabouts(range="fd00::/127"), ["!ipam.range"]),
        (whereabouts(range_start="x"), ["ipam.range_start"]),
        (whereabouts(range_start="10.8.0.1"), ["ipam.range_start"]),
        (whereabouts(range_end="10.8.0.1"), ["ipam.range_end"]),
        (whereabouts(range_start="10.9.0.9", range_end="10.9.0.5"), ["ipam.range_end"]),
        (whereabouts(exclude=["x"]), ["!ipam.exclude"]),
        (whereabouts(exclude="10.9.0.1/32"), ["!ipam.exclude"]),
        (whereabouts(node_slice_size="/28", exclude=["10.9.0.0/24"]), ["ipam.exclude"]),
        (whereabouts(node_slice_size="/28", range_start="10.9.0.9"), ["ipam.range_start"]),
        (whereabouts(node_slice_size="/28", gateway="10.9.0.1"), ["ipam.gateway"]),
        (whereabouts(ipRanges=[{"range": "10.8.0.0/24"}], gateway="10.8.0.1"), ["ipam.gateway"]),
        (whereabouts(RANGE="10.9.0.0"), []),
        (whereabouts(range=None, RANGE="10.9.0.0"), ["!ipam.range"]),
        (whereabouts(exclude=["10.9.0.0/24"]), ["!ipam.exclude"]),
        (whereabouts(ipRanges=["10.0.0.0/24"]), ["!ipam.ipRanges"]),
        (whereabouts(ipRanges=[{"range": "x"}]), ["!ipam.ipRanges[0].range"]),
        (whereabouts(range_start=7), ["!ipam.range_start"]),
        (
            whereabouts(ipRanges=[{"range": "10.8.0.0/24", "range_start": "x", "range_end": ""}]),
            ["!ipam.ipRanges[0].range_start"],
        ),
        (
            whereabouts(ipRanges=[{"range": "10.8.0.0/24", "range_start": "10.9.0.1"}]),
            ["ipam.ipRanges[0].range_start"],
        ),
        (whereabouts(gateway="x"), ["!ipam.gateway"]),
        (whereabouts(gateway="10.9.0.1"), ["ipam.gateway"]),
        (whereabouts(node_slice_size="/16"), ["!ipam.node_slice_size"]),
        (whereabouts(node_slice_size=28), ["!ipam.node_slice_size"]),
        (whereabouts(node_slice_size="2" * 5000), ["!ipam.node_slice_size"]),
        (config(plugin(ipam=WHEREABOUTS | {"node_slice_size": "/80"})), ["!ipam.node_slice_size"]),
        (
            config(plugin(ipam=WHEREABOUTS | {"range_start": "fcbb:0:800:ffff:8000::1"})),
            ["ipam.range_start"],
        ),
        (config(plugin(ipam={"type": "host-local"})), ["!ipam.ranges", "ipam.subnet"]),
        (host_local({"subnet": "10.9.0.0/24"}), ["!ipam.ranges", "ipam.ranges"]),
        (host_local([]), ["!ipam.ranges", "ipam.ranges"]),
        (host_local([{"subnet": "10.9.0.5/24"}]), ["!ipam.ranges[0][0]", "ipam.ranges"]),
        (host_local([{"subnet": "10.9.0.0/31"}]), ["!ipam.ranges[0][0]", "ipam.ranges"]),
        (host_local([{"subnet": "x"}]), ["!ipam.ranges[0][0]", "ipam.ranges"]),
        (
            host_local([{"subnet": "10.9.0.0/24", "rangeStart": "10.8.0.1"}]),
            ["!ipam.ranges[0][0]", "ipam.ranges"],
        ),
        (
            host_local([{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.9", "rangeEnd": "10.9.0.8"}]),
            ["!ipam.ranges[0][0]", "ipam.ranges"],
        ),
        (
            host_local([{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.1", "rangeEnd": "::ffff:10.9.0.1"}]),
            ["!ipam.ranges[0][0]", "ipam.ranges"],
        ),
        (
            host_local([{"subnet": "10.9.0.0/24"}], [{"subnet": "10.9.0.0/25"}]),
            ["!ipam.ranges[1][0]", "ipam.ranges"],
        ),
        (
            host_local([{"subnet": "10.9.0.0/24"}, {"subnet": "fd00::/64"}]),
            ["!ipam.ranges[0][1]", "ipam.ranges"],
        ),
        (config(plugin(ipam=STATIC)), ["capabilities.ips"]),
        (config(plugin(ipam=STATIC | {"addresses": 7}, **IPS)), ["!ipam.addresses"]),
        (
            config(plugin(ipam=STATIC | {"addresses": [{"address": "10.9.0.1/24"}]}, **IPS)),
            ["ipam.addresses"],
        ),
        (
            config(plugin(ipam=STATIC | {"addresses": [{"address": "10.9.0.1"}]})),
            ["!ipam.addresses[0].address", "ipam.addresses"],
        ),
    ],
)
def test_a_fault_is_found_with_its_field(body: object, found: list[str]) -> None:
    assert [one.replace("plugins[0].", "") for one in fields(body)] == found


def test_one_range_for_all_nodes_is_a_fault_where_nodes_allocate_or_route() -> None:
    shared = config(plugin(ipam=HOST_LOCAL))
    assert fields(shared) == fields(shared, nodes=2) == ["plugins[0].ipam.ranges"]
    assert fields(shared, nodes=1) == []
    for mode in ("l3", "l3s"):
        routed = config(plugin(mode=mode))
        assert fields(routed) == fields(routed, nodes=2) == ["plugins[0].mode"]
        assert fields(routed, nodes=1) == []
    static = config(plugin(mode="l3", ipam=STATIC, **IPS))
    assert fields(static) == ["~plugins[0].mode"], "a route for each address"
    assert fields(static, nodes=1) == []
    assert fields(config(plugin(mode="l3", ipam=V4 | {"node_slice_size": "/28"}))) == []


@pytest.mark.parametrize(
    ("body", "ipam"),
    [
        # The gateway, here by default the first address, is given to no pod.
        (config(plugin(ipam=HOST_LOCAL)), FIRST_EXCLUDED),
        (config(plugin(ipam={"type": "host-local", "subnet": "10.9.0.0/24"})), FIRST_EXCLUDED),
        (
            config(
                plugin(
                    ipam={"type": "host-local", "subnet": "10.1.0.0/16"}
                    | {"rangeStart": "10.1.5.10", "rangeEnd": "10.1.5.250", "gateway": "10.1.5.50"}
                )
            ),
            {
                "type": "whereabouts",
                "range": "10.1.0.0/16",
                "range_start": "10.1.5.10",
                "range_end": "10.1.5.250",
            }
            | {"exclude": ["10.1.5.50/32"], "gateway": "10.1.5.50"},
        ),
        (
            host_local([{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.5"}], routes=[{"dst": "10.0.0.0/8"}]),
            {
                "type": "whereabouts",
                "range": "10.9.0.0/24",
                "range_start": "10.9.0.5",
                "gateway": "10.9.0.1",  # of the route, which has none
                "routes": [{"dst": "10.0.0.0/8"}],
            },
        ),
        (
            host_local([{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00::/64", "rangeEnd": "fd00::9"}]),
            FIRST_EXCLUDED
            | {"ipRanges": [{"range": "fd00::/64", "range_end": "fd00::9", "exclude": ["fd00::1/128"]}]},
        ),
        (whereabouts(enable_ipv6=True), V4),
        (whereabouts(gateway="10.9.0.1"), FIRST_EXCLUDED | {"gateway": "10.9.0.1"}),
        (
            whereabouts(range=None, ipRanges=[{"range": "10.9.0.0/24"}], gateway="10.9.0.1"),
            {
                "type": "whereabouts",
                "ipRanges": [{"range": "10.9.0.0/24", "exclude": ["10.9.0.1/32"]}],
                "gateway": "10.9.0.1",
            },
        ),
        (whereabouts(node_slice_size="/28", exclude=["10.9.0.1/32"]), V4 | {"node_slice_size": "/28"}),
        (
            whereabouts(range_start="10.9.0.9", range_end="10.9.0.5"),
            V4 | {"range_start": "10.9.0.5", "range_end": "10.9.0.9"},
        ),
    ],
)
def test_the_correction_has_no_fault(body: object, ipam: dict[str, Any]) -> None:
    (corrected,) = linted(body).corrections.values()
    assert corrected["plugins"][0]["ipam"] == ipam
    assert findings(corrected) == []


@pytest.mark.parametrize(
    "body",
    [
        host_local([{"subnet": "10.9.0.0/24"}, {"subnet": "10.8.0.0/24"}]),  # alternatives for one address
        host_local([{"subnet": "10.9.0.0/24", "gateway": "10.9.0.9"}], [{"subnet": "fd00::/64"}]),
        host_local([{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00::/64"}], routes=[{"dst": "::/0"}]),
        whereabouts(node_slice_size="/28", gateway="10.9.0.1"),
    ],
)
def test_what_whereabouts_cannot_do_is_no_correction(body: object) -> None:
    found = linted(body)
    assert found.faults[0].fix
    assert found.corrections == {}


def test_static_addresses_are_a_default_where_pods_can_request_others() -> None:
    ipam = STATIC | {"addresses": [{"address": "10.9.0.1/24"}]}
    texts = [findings(config(plugin(ipam=ipam, **more)))[0].consequence for more in (IPS, {})]
    assert ["unless its annotation has others" in text for text in texts] == [True, False]


def test_l2_replaces_l3_only_if_the_nodes_share_a_segment() -> None:
    """With routers between the nodes, each has a range of its own, which one object cannot say."""
    (fault,) = linted(config(plugin(mode="l3"))).faults
    assert "segment" in fault.condition
    assert "--mode l3 --slice NODE=CIDR" in fault.fix
    found = linted(config(plugin(mode="l3", ipam=HOST_LOCAL)))
    assert found.conditions == dict.fromkeys(found.corrections, fault.condition)
    assert linted(config(plugin(ipam=HOST_LOCAL))).conditions == {}


def test_an_invalid_static_address_blocks_unless_pods_can_request_others() -> None:
    """The plugin static takes those of the annotation in its place: tests/lab calls it."""
    ipam = STATIC | {"addresses": [{"address": "10.9.0.1"}]}
    first = [findings(config(plugin(ipam=ipam, **more)))[0] for more in (IPS, {})]
    assert [(one.field, one.blocks) for one in first] == [
        ("plugins[0].ipam.addresses[0].address", False),
        ("plugins[0].ipam.addresses[0].address", True),
    ]


def test_a_correction_that_makes_another_one_necessary() -> None:
    """As l2, which replaces l3 here, the interface receives router advertisements."""
    (corrected,) = linted({"cniVersion": "1.0.0", **plugin(mode="l3")}).corrections.values()
    assert corrected["plugins"][0]["mode"] == "l2"
    assert findings(corrected) == []


def test_static_addresses_in_the_attachment_become_those_of_pods() -> None:
    ipam = STATIC | {"addresses": [{"address": "10.9.0.1/24"}]}
    (corrected,) = linted(config(plugin(ipam=ipam))).corrections.values()
    assert corrected["plugins"][0]["ipam"] == STATIC
    assert corrected["plugins"][0]["capabilities"] == {"ips": True}
