"""Fields of another type than the plugins read. What they accept and refuse was tried with the plugins 1.9.1."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.attachments import TUNING, config, fields, findings, linted, plugin
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.lint import lint

V4 = {"type": "whereabouts", "range": "10.9.0.0/24"}
STATIC = {"type": "static"}


def main(kind: str = "ipvlan", ipam: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    found = plugin(kind, ipam=V4 | (ipam or {}))
    return config({**found, **more})


def static(**more: Any) -> dict[str, Any]:
    return config(plugin(ipam=STATIC | more, capabilities={"ips": True}))


@pytest.mark.parametrize(
    "body",
    [
        main(capabilities={"ips": True, "mac": False}, dns={"nameservers": ["10.9.0.1"], "search": []}),
        main(capabilities=None, dns=None, linkInContainer=None),
        main("bridge", isGateway=True, ipMasq=False, ISDEFAULTGATEWAY=True, vlanTrunk=[{"id": 5}]),
        main("bridge", mac=7),  # not read
        main(ipam={"routes": [{"dst": "10.0.0.0/8", "gw": "10.9.0.1"}, {"dst": "::/0", "gw": ""}, None]}),
        main(ipam={"routes": [{"gw": "10.9.0.1"}, {"dst": "10.0.0.0/8", "gw": None}]}),
        main(ipam={"log_level": "anything", "enable_overlapping_ranges": False, "sleep_for_race": -1}),
        static(routes=[{"dst": "fd00::/8"}], dns={}),
        config(plugin(), TUNING | {"mtu": 9000, "promisc": True}),
        config(plugin(), TUNING, disableCheck="True", disableGC=False, DisableCheck=7),
        config(plugin(), TUNING, {"type": "bandwidth", "ingressRate": 0}),
    ],
)
def test_what_the_plugins_read_has_no_finding(body: object) -> None:
    assert findings(body) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (main(capabilities=["ips"]), "plugins[0].capabilities"),
        (main(capabilities={"ips": "yes"}), "plugins[0].capabilities.ips"),
        (main(dns=[]), "plugins[0].dns"),
        (main(dns={"nameservers": "10.9.0.1"}), "plugins[0].dns.nameservers"),
        (main(linkInContainer="yes", master="ens5"), "plugins[0].linkInContainer"),
        (main("macvlan", bcqueuelen=-1), "plugins[0].bcqueuelen"),
        (main("macvlan", bcqueuelen=1 << 32), "plugins[0].bcqueuelen"),
        (main("bridge", isGateway="yes"), "plugins[0].isGateway"),
        (main("bridge", IPMASQ=1), "plugins[0].IPMASQ"),
        (main("bridge", vlanTrunk=[5]), "plugins[0].vlanTrunk"),
        (main("vlan", vlanId=99999), "plugins[0].vlanId"),
        (main("vlan", vlanId="5"), "plugins[0].vlanId"),
        (main(ipam={"routes": "x"}), "plugins[0].ipam.routes"),
        (main(ipam={"routes": ["x"]}), "plugins[0].ipam.routes"),
        (main(ipam={"routes": [{"dst": "nonsense"}]}), "plugins[0].ipam.routes[0].dst"),
        (main(ipam={"routes": [{"dst": None}]}), "plugins[0].ipam.routes[0].dst"),
        (main(ipam={"routes": [{"dst": "10.0.0.0/8", "gw": "x"}]}), "plugins[0].ipam.routes[0].gw"),
        (main(ipam={"routes": [{"dst": "10.0.0.0/8", "gw": 7}]}), "plugins[0].ipam.routes[0].gw"),
        (main(ipam={"log_level": 7}), "plugins[0].ipam.log_level"),
        (main(ipam={"enable_overlapping_ranges": "false"}), "plugins[0].ipam.enable_overlapping_ranges"),
        (main(ipam={"leader_lease_duration": "1500"}), "plugins[0].ipam.leader_lease_duration"),
        (static(routes=[{"dst": "10.0.0.0"}]), "plugins[0].ipam.routes[0].dst"),
        (static(dns=7), "plugins[0].ipam.dns"),
        (config(plugin(), TUNING | {"mtu": "x"}), "plugins[1].mtu"),
        (config(plugin(), TUNING | {"promisc": 1.5}), "plugins[1].promisc"),
        (config(plugin(), TUNING, disableCheck="x"), "disableCheck"),
        (config(plugin(), TUNING, {"type": "portmap", "markMasqBit": 32}), "plugins[2].markMasqBit"),
    ],
)
def test_what_they_refuse_is_a_fault_with_the_valid_form(body: object, field: str) -> None:
    assert fields(body) == [f"!{field}"]
    (one,) = findings(body)
    assert one.changes or one.fix


def test_a_value_in_quotes_is_corrected() -> None:
    body = main("bridge", isGateway="true", ipam={"enable_overlapping_ranges": "false"})
    (corrected,) = linted(body).corrections.values()
    assert corrected["plugins"][0]["isGateway"] is True
    assert corrected["plugins"][0]["ipam"]["enable_overlapping_ranges"] is False
    assert findings(corrected) == []


def test_capabilities_that_are_no_object_are_corrected_where_an_address_must_be_passed() -> None:
    body = config(plugin(ipam=STATIC, capabilities=["ips"]))
    (corrected,) = linted(body).corrections.values()
    assert corrected["plugins"][0]["capabilities"] == {"ips": True}
    assert findings(corrected) == []


def test_the_routes_of_an_ipam_by_itself_are_checked() -> None:
    text = json.dumps({"ipam": V4 | {"routes": [{"dst": "x"}]}, "isGateway": "yes"})
    found = lint([Definition("", "FILE", text, ipam_only=True)])
    assert [one.field for one in found.faults] == ["ipam.routes[0].dst"]
