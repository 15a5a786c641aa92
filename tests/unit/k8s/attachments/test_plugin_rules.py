"""Faults of the plugins of an attachment: each is found, and its correction has none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.attachments import TUNING, config, definition, fields, findings, linted, plugin, single
from torchnet.k8s.attachments.lint import lint

V4 = {"type": "whereabouts", "range": "10.9.0.0/24"}


SHAPED = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
LIMITED = {"type": "bandwidth", "ingressRate": 1000, "ingressBurst": 1000}


def tuned(settings: Any) -> dict[str, Any]:
    advertisements = TUNING["sysctl"] if isinstance(settings, dict) else {}
    return {"type": "tuning", "sysctl": advertisements | settings if advertisements else settings}


@pytest.mark.parametrize(
    "body",
    [
        config(),
        single(),
        config(plugin("macvlan")),
        config(plugin("macvlan", mode="vepa", mtu=9000)),
        *(config(plugin("bridge", vlan=vlan)) for vlan in (0, 7, 4094)),
        *(config(plugin("macvlan", mtu=mtu)) for mtu in (0, 1280)),
        config(plugin(mtu=0)),
        *(config(plugin(mode="l2"), cniVersion=version) for version in ("0.3.0", "0.3.1")),
        # It has nothing to do, and so does not look for a veth interface.
        *(config(plugin(), TUNING, {"type": "bandwidth"} | more) for more in ({}, {"ingressRate": 0})),
        config(plugin(), tuned({"net.ipv4.tcp_rmem": "4096 87380 6291456", "net/core/somaxconn": "9"})),
        {
            "CNIVersion": "1.0.0",
            "Type": "ipvlan",
            "Master": "ens5",
            "IPAM": V4,
        },  # Go reads names without case
        config(cniVersion=None, cniVersions=["0.4.0", "1.0.0"]),
        config(name=None),
        single(plugin(linkInContainer=True, ipam=V4)),
        config(plugin("sriov", master=None, deviceID="0000:03:02.0")),
        {"cniVersion": "1.0.0", "type": "host-device", "device": "ens5", "ipam": V4},
    ],
)
def test_what_works_has_no_findings(body: object) -> None:
    assert findings(body) == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (config(cniVersion=None), ["!cniVersion"]),
        (config(cniVersion=""), ["!cniVersion"]),
        (config(cniVersion="0.2.0"), ["!cniVersion"]),
        (config(cniVersion="0.1.0"), ["!cniVersion"]),
        (single(cniVersion=None, cniVersions=["0.4.0"]), ["!cniVersion"]),
        (config(cniVersion=None, CNIVersion="1.0.0"), ["!cniVersion"]),
        (config(cniVersion="2.0"), ["!cniVersion"]),
        (config(cniVersion="1.1.0"), ["~cniVersion"]),
        (config(plugin(mtu=1279, ipam=V4)), ["!plugins[0].mtu"]),
        (config(cniVersion=1), ["!cniVersion"]),
        (config(cniVersion=["1.0.0"]), ["!cniVersion"]),
        (config(name="a b"), ["!name"]),
        (config(name=7), ["!name"]),
        (config(plugins=None), ["!"]),
        (config(plugins=[]), ["!plugins"]),
        (config(plugins=7), ["!plugins"]),
        (config(plugins=["ipvlan"]), ["!plugins"]),
        ({"cniVersion": "1.0.0"}, ["!"]),
        (config(plugin(type=None)), ["!plugins[0].type"]),
        (single(plugins=[plugin()]), ["~plugins"]),
        (config(plugin("vxlan")), ["~plugins[0].type"]),
        (config(TUNING, plugin()), ["!plugins[0].type"]),
        (config(plugin(master=None)), ["plugins[0].master"]),
        (config(plugin(master="")), ["plugins[0].master"]),
        (config(plugin("macvlan", master="an-interface-that-is-long")), ["~plugins[0].master"]),
        (config(plugin(master="enx" + "a" * 125)), ["!plugins[0].master"]),
        (config(plugin(master="a b")), ["!plugins[0].master"]),
        (config(plugin(master=5)), ["!plugins[0].master"]),
        (config(plugin(mode="L2")), ["!plugins[0].mode"]),
        (config(plugin(mode="bridge")), ["!plugins[0].mode"]),
        (config(plugin("macvlan", mode="l2")), ["!plugins[0].mode"]),
        (config(plugin("macvlan", mode="passthru")), ["plugins[0].mode"]),
        (config(plugin("bridge", bridge=None)), ["~plugins[0].bridge"]),
        (config(plugin("bridge", bridge="a/b")), ["!plugins[0].bridge"]),
        (config(plugin("bridge", vlan=4095)), ["!plugins[0].vlan"]),
        (config(plugin(mtu="9000")), ["!plugins[0].mtu"]),
        (config(plugin("macvlan", mtu=-1)), ["!plugins[0].mtu"]),
        (config(plugin(mtu=-1)), ["~plugins[0].mtu"]),
        (config(plugin(mtu=1200)), ["!plugins[0].mtu"]),
        (config(plugin(), TUNING, LIMITED), ["!plugins[2]"]),
        (config(plugin("macvlan"), TUNING, LIMITED), ["!plugins[2]"]),
        (config(plugin("bridge"), TUNING, LIMITED), []),
        (config(plugin(), TUNING, SHAPED), ["~plugins[2]"]),
        (config(plugin(), tuned({"net.core.rmem_max": "9"})), ["!plugins[1].sysctl.net.core.rmem_max"]),
        (
            config(plugin(), tuned({"net/core/netdev_max_backlog": "9"})),
            ["!plugins[1].sysctl.net/core/netdev_max_backlog"],
        ),
        (config(plugin(), tuned({"net.ipv4.udp_mem": "1 2 3"})), ["!plugins[1].sysctl.net.ipv4.udp_mem"]),
        (config(plugin(), tuned({"kernel.shmmax": "9"})), ["!plugins[1].sysctl.kernel.shmmax"]),
        (config(plugin(), tuned({"net.core.somaxconn": 9})), ["!plugins[1].sysctl.net.core.somaxconn"]),
        (config(plugin(), tuned(["x"])), ["!plugins[1].sysctl", "~plugins"]),
        (
            config(
                plugin(ipam={"type": "static", "addresses": [{"address": "fd00::1/64"}]}),
                {"type": "tuning"},
            ),
            ["~plugins", "plugins[0].ipam.addresses"],
        ),
        (config(plugin(), {"type": "tuning", "sysctl": {}}), ["~plugins"]),
        (config(plugin(), {"type": "tuning"}), ["~plugins"]),
        ({**plugin("bridge"), "cniVersion": "1.0.0"}, ["~plugins"]),
    ],
)
def test_a_fault_is_found_with_its_field(body: object, found: list[str]) -> None:
    assert fields(body) == found


@pytest.mark.parametrize("path", ["net.ipv6.conf.IFNAME.accept_ra", "net/ipv6/conf/IFNAME/accept_ra"])
def test_both_forms_of_a_sysctl_are_known(path: str) -> None:
    assert findings(config(plugin(), {"type": "tuning", "sysctl": {path: "0"}})) == []


def test_a_mode_that_routes_receives_no_router_advertisements() -> None:
    assert fields({**plugin(mode="l3"), "cniVersion": "1.0.0"}, nodes=1) == []


def test_an_mtu_below_1280_is_fine_for_ipv4() -> None:
    assert findings(single(plugin(mtu=1200, ipam=V4))) == []


def test_each_finding_says_what_happens() -> None:
    for one in findings(config(plugin(mode="x", master=None), {"type": "bandwidth"}, cniVersion=None)):
        assert one.text
        assert one.consequence
        assert one.sentence.isprintable()


@pytest.mark.parametrize(
    ("body", "corrected"),
    [
        (config(cniVersion=None), config()),
        (config(plugin(mode="L2")), config(plugin(mode="l2"))),
        (config(plugin(), TUNING, LIMITED), config()),
        (config(plugin(), LIMITED, TUNING, SHAPED), config()),
        (config(plugin(), tuned({"net.core.rmem_max": "9"})), config()),
        (
            config(plugin(), tuned({"net.core.somaxconn": 9})),
            config(plugin(), tuned({"net.core.somaxconn": "9"})),
        ),
        (config(plugin(mtu=1200)), config()),
    ],
)
def test_the_correction_has_no_fault(body: object, corrected: dict[str, Any]) -> None:
    assert linted(body).corrections == {"ml/net0": corrected}
    assert findings(corrected) == []


def test_a_single_plugin_becomes_a_list_for_a_second_one() -> None:
    (body,) = linted({"name": "net", **plugin("macvlan")}).corrections.values()
    assert list(body) == ["cniVersion", "name", "plugins"]
    assert body["plugins"][0] == plugin("macvlan")
    assert body["plugins"][1]["sysctl"]["net.ipv6.conf.IFNAME.accept_ra"] == "0"
    assert findings(body) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1, column 2"),
        ('{\n "a": 1,\n}', "line 3, column 1"),
        ("[]", "not a JSON object"),
        ("", "not a JSON object"),
        ('{"a": NaN}', "NaN"),
        ("[" * 5000, "nested"),
        ('{"a": ' + "9" * 500 + "}", "digits"),
        ('"' + "x" * (1 << 20) + '"', "characters"),
    ],
)
def test_text_that_is_no_json_is_named_with_its_place(text: str, said: str) -> None:
    if not text:
        return  # an attachment without spec
    found = lint([definition(text)])
    (one,) = found.findings
    assert said in one.text
    assert one.blocks
    assert found.corrections == {}


def test_a_placeholder_does_not_hide_the_other_faults() -> None:
    text = '{"type": "ipvlan", "master": "ens5",\n "ipam": { ... }}'
    assert fields(text) == ["!", "!cniVersion"]
    assert "line 2, column" in findings(text)[0].text
    assert "placeholder" in findings(text)[0].text


def test_a_device_comes_from_the_resource_that_the_attachment_names() -> None:
    body = config(plugin("sriov", master=None))
    assert fields(body) == ["plugins[0].type"]
    assert lint([definition(body, resource="nvidia.com/rdma-vf")]).findings == ()
    assert lint([definition(body, namespace="")]).findings == (), (
        "a configuration by itself has no annotations"
    )
