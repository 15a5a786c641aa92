"""torchnet.linux.rtnetlink against iproute2, in namespaces of the test's own."""

from __future__ import annotations

import json
import socket
import time
from errno import ENETUNREACH
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces import Space, cable, ip, isolated
from tests.unit.agents import spec
from torchnet.agent.process_env import ProcessEnvironment
from torchnet.linux import rtnetlink
from torchnet.linux.netlink import Netlink
from torchnet.network.interface_selection import Interface, Rail


def by_iproute(command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ip(f"-json -details -statistics {command}"))
    return [item for item in found if item]


def furnish() -> Space:
    """Two cables to another namespace, and one of each kind of address that there is."""
    far = Space()
    cable("net1", "net1", far, addresses=(("fcbb:0:800:ffff::1/64", "fcbb:0:800:ffff::2/64"),))
    cable("eth0", "eth0", far, addresses=(("172.30.0.1/16", "172.30.0.2/16"),))
    ip("address add 10.1.2.3 peer 10.1.2.4/32 dev eth0")
    ip("address add 10.9.9.1/24 dev eth0 scope link")
    ip("address add 2001:db8::7/120 dev net1 preferred_lft 0 valid_lft 1000")
    ip("link add brid type bridge")
    ip("link set net1 mtu 9000")
    ip("link add half type veth peer name other")
    ip("link set half up")
    return far


@isolated
def test_interfaces_are_those_of_ip_address() -> None:
    furnish()
    found = rtnetlink.interfaces()
    listed = by_iproute("address")
    assert list(found) == [item["ifname"] for item in listed] != []
    for item in listed:
        _same(found[item["ifname"]], item)
    assert found["net1"].mtu == 9000
    assert not found["half"].carrier
    assert found["half"].up
    assert not found["brid"].up


@isolated
def test_the_kinds_of_links_are_those_of_ip_link() -> None:
    for words in ("v0 type veth peer name v1", "link v0 name m0 type macvlan", "name b0 type bridge"):
        ip(f"link add {words}")
    shown = {item["ifname"]: item.get("linkinfo", {}).get("info_kind", "") for item in by_iproute("link")}
    assert {name: kind for name, (kind, _) in rtnetlink.link_types().items()} == shown
    assert {shown[name] for name in ("v0", "m0", "b0", "lo")} == {"veth", "macvlan", "bridge", ""}


def _same(found: Interface, item: dict[str, Any]) -> None:
    flags = item["flags"]
    assert (found.index, found.mac, found.mtu) == (item["ifindex"], item["address"], item["mtu"])
    assert (found.up, found.carrier) == ("UP" in flags, "LOWER_UP" in flags)
    addresses = [
        (
            address["local"],
            address["prefixlen"],
            {"inet": 4, "inet6": 6}[address["family"]],
            address["scope"],
            address.get("tentative", False),
            address.get("dadfailed", False),
            address.get("deprecated", False),
            not address.get("dynamic", False),
        )
        for address in item.get("addr_info", [])
    ]
    assert addresses == [
        (a.ip, a.prefix, a.family, a.scope, a.tentative, a.dadfailed, a.deprecated, a.permanent)
        for a in found.addresses
    ]


@isolated
def test_an_address_that_is_still_checked_is_tentative_and_a_duplicate_is_dadfailed() -> None:
    far = Space()
    cable("net1", "net1", far)
    with far:
        ip("address add fd00::5/64 dev net1 nodad")
    ip("address add fd00::5/64 dev net1")
    seen = set()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        (address,) = (a for a in rtnetlink.interfaces()["net1"].addresses if a.scope == "global")
        (shown,) = (a for a in by_iproute("address show net1")[0]["addr_info"] if a["scope"] == "global")
        if address.dadfailed:
            assert shown["dadfailed"]
            break
        assert address.tentative
        seen.add("tentative")
        time.sleep(0.02)
    else:
        raise AssertionError("the kernel never found the duplicate")
    assert seen == {"tentative"}


@isolated
def test_counters_are_those_of_ip_statistics_and_count_what_was_sent() -> None:
    far = furnish()
    with far:
        sink = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sink.settimeout(5)
        sink.bind(("fcbb:0:800:ffff::2", 7000))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"neighbours find each other first", ("fcbb:0:800:ffff::2", 7000))
        sink.recv(100)
        before = rtnetlink.counters()
        for _ in range(100):
            sender.sendto(bytes(1000), ("fcbb:0:800:ffff::2", 7000))
            sink.recv(2000)
    after = rtnetlink.counters()
    wire = 100 * (14 + 40 + 8 + 1000)  # Ethernet, IPv6, UDP
    assert (
        wire <= after["net1"].sent_bytes - before["net1"].sent_bytes <= wire + 2000
    )  # groups and neighbours
    assert after["eth0"].sent_bytes - before["eth0"].sent_bytes < 2000
    with far:
        assert wire <= rtnetlink.counters()["net1"].received_bytes <= wire + 4000
    for _ in range(20):  # the kernel sends by itself, too
        first, listed, second = rtnetlink.counters(), by_iproute("link"), rtnetlink.counters()
        if first == second:
            break
    stats = {item["ifname"]: item["stats64"] for item in listed}
    shown = {
        name: (s["tx"]["bytes"], s["rx"]["bytes"], s["tx"]["packets"], s["rx"]["packets"])
        for name, s in stats.items()
    }
    assert shown == {
        name: (one.sent_bytes, one.received_bytes, one.sent_packets, one.received_packets)
        for name, one in first.items()
    }


@pytest.mark.parametrize(
    "address", ["172.30.0.2", "fcbb:0:800:ffff::2", "10.1.2.4", "203.0.113.9", "fd99::1", "127.0.0.1", "::1"]
)
def test_route_is_that_of_ip_route_get(address: str) -> None:
    _compare_routes(address)


@isolated
def _compare_routes(address: str) -> None:
    furnish()
    ip("route add 203.0.113.0/24 via 172.30.0.2 src 10.1.2.3")
    ip("route add fd99::/64 via fcbb:0:800:ffff::2 dev net1")
    (shown,) = by_iproute(f"route get {address}")
    found = rtnetlink.route(address)
    assert (found.interface, found.source, found.direct) == (
        shown["dev"], shown["prefsrc"], "gateway" not in shown
    )  # fmt: skip
    with Netlink() as netlink:
        named = rtnetlink.route(address, netlink, names={index: "x" for index, _ in socket.if_nameindex()})
        assert named == rtnetlink.Route("x", found.source, found.direct)
        assert rtnetlink.route(address, netlink) == found


@isolated
def test_a_rule_for_the_source_address_decides() -> None:
    furnish()
    ip("-6 rule add from fcbb:0:800:ffff::1 table 100")
    ip("route add fd99::/64 dev net1 table 100")
    ip("route add fd99::/64 via fcbb:0:800:ffff::9 dev net1")
    assert not rtnetlink.route("fd99::1").direct
    assert rtnetlink.route("fd99::1", source="fcbb:0:800:ffff::1").direct


def test_the_limit_of_neighbours_is_the_hosts_in_each_namespace() -> None:
    limits = [
        int(Path(f"/proc/sys/net/ipv{family}/neigh/default/gc_thresh3").read_text()) for family in (4, 6)
    ]
    assert [rtnetlink.neighbour_limit(family) for family in (4, 6)] == limits
    _compare_limits(limits)


@isolated
def _compare_limits(limits: list[int]) -> None:
    assert [rtnetlink.neighbour_limit(family) for family in (4, 6)] == limits


@isolated
def test_no_route_is_the_kernels_error() -> None:
    furnish()
    for address in ("198.51.100.1", "fd55::1"):
        with pytest.raises(OSError) as caught:
            rtnetlink.route(address)
        assert caught.value.errno == ENETUNREACH


@isolated
def test_a_watcher_hears_of_links_and_addresses_within_a_moment() -> None:
    # Nothing is to happen by itself, as the end of duplicate address detection would.
    Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
    furnish()
    time.sleep(1.5)  # nor the kernel's word on carriers, which it gives once a second
    with rtnetlink.watcher() as watcher:
        assert not rtnetlink.changes(watcher)
        changes = (
            "address add 10.5.5.5/32 dev eth0",
            "address add fd12::1/64 dev net1 nodad",
            "address del 10.5.5.5/32 dev eth0",
            "link set net1 mtu 8000",
        )
        for change in changes:
            ip(change)
            deadline = time.monotonic() + 2
            while not rtnetlink.changes(watcher):
                assert time.monotonic() < deadline, change
                time.sleep(0.005)
            time.sleep(0.05)
            rtnetlink.changes(watcher)  # what else the change brought along
        ip("route add 198.51.100.0/24 dev eth0")
        time.sleep(0.05)
        assert not rtnetlink.changes(watcher)


@isolated
def test_a_socket_stays_in_the_namespace_that_it_was_made_in() -> None:
    far = Space()
    cable("near1", "far1", far)
    with far, Netlink() as netlink:
        outside = Netlink()
    with far:
        assert set(rtnetlink.interfaces()) == {"lo", "far1"}
    assert set(rtnetlink.interfaces(outside)) == {"lo", "far1"}
    assert set(rtnetlink.interfaces()) == {"lo", "near1"}
    outside.close()
    assert netlink.fileno() == -1


@isolated
def test_the_default_route_tells_the_hosts_own_interface_from_a_bridge_of_containers() -> None:
    furnish()
    ip("link add docker0 type bridge")
    ip("address add 172.17.0.1/16 dev docker0")
    ip("link set docker0 up")
    assert (rtnetlink.default_interface(), rtnetlink.default_interface(6)) == ("", "")
    ip("route add default via 172.30.0.2 dev eth0")
    ip("route add default via fcbb:0:800:ffff::2 dev net1")
    assert (rtnetlink.default_interface(), rtnetlink.default_interface(6)) == ("eth0", "net1")
    rail = Rail(0, None, "net1", "fcbb:0:800:ffff::1", 6, 64, 9000)
    given = ProcessEnvironment(spec(entry="program"), rail.address, (rail,), 29501, 0).given(0)
    assert given["NVTE_UB_SOCKET_IFNAME"] == "eth0"  # docker0 comes before it in the alphabet


@isolated
def test_an_exported_nccl_socket_ifname_declares_a_rail_but_not_the_hosts_own_interface() -> None:
    furnish()
    ip("link add ens6 type bridge")
    ip("address add 10.6.0.1/24 dev ens6")
    ip("link set ens6 up")
    ip("link add ens60 type bridge")
    rail = Rail(0, None, "net1", "fcbb:0:800:ffff::1", 6, 64, 9000)

    def made(value: str, **fields: Any) -> tuple[tuple[str, ...], str]:
        env = {"NCCL_SOCKET_IFNAME": value} if value else {}
        one = ProcessEnvironment(spec(entry="program", env=env, **fields), rail.address, (rail,), 29501, 0)
        return one.declared, " ".join(text for text in one.warnings() if "NCCL_SOCKET_IFNAME" in text)

    declared, warning = made("ens6")  # a prefix; ens60 has no address
    assert (declared, "counts as backend" in warning, "may leave the backend" in warning) == (
        ("ens6",),
        True,
        False,
    )
    declared, warning = made("=eth0")
    assert (declared, "counts as backend" in warning, "may leave the backend" in warning) == ((), False, True)
    assert made("=eth0", network="host")[0] == ("eth0",)
    ip("route add default via 172.30.0.2 dev eth0")
    assert made("=eth0", network="host")[0] == ()
    declared, warning = made("=eth0,ens6")
    assert (declared, "may leave the backend" in warning) == (("ens6",), True)
    for value in ("", "^eth0", "=net1"):
        declared, warning = made(value)
        assert (declared, "counts as backend" in warning) == ((), False)
    assert made("ens6", loopback=True)[0] == ()
