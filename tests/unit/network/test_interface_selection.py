"""Which address a rail takes, and what is refused, with names and a way out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.errors import NetworkError
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import (
    Address,
    Family,
    Interface,
    Rail,
    TakenError,
    TentativeError,
    select_rail,
)
from torchnet.network.network_status import StatusEntry

IP = "fcbb:0:800:ffff::1"
SIX = Address(IP, 64, 6)
OTHER_SIX = Address("fcbb:0:800:ffff::2", 64, 6)
SLAAC = Address("2001:db8::5", 64, 6, permanent=False)
FOUR = Address("10.9.0.1", 24, 4)
LINK = Address("fe80::1", 64, 6, "link")
ENTRY = StatusEntry("default/backend-network", "net1", (IP,), "02:00:00:00:00:01")
HOST = StatusEntry("host:net1", "net1")
NET1 = Interface("net1", 3, "02:00:00:00:00:01", 9000, up=True, carrier=True, addresses=(SIX, LINK))


def choose(
    *addresses: Address, entry: StatusEntry | None = ENTRY, family: Family = "auto", **changes: Any
) -> Rail:
    interface = replace(NET1, addresses=addresses, **changes)
    return select_rail("node-1", 0, ENTRY.name, entry, interface, family)


def refused(*addresses: Address, **rest: Any) -> NetworkError:
    with pytest.raises(NetworkError) as caught:
        choose(*addresses, **rest)
    error = caught.value
    assert "node-1" in error.text
    assert "default/backend-network" in error.text
    assert error.fix
    return error


def test_the_one_global_ipv6() -> None:
    rail = choose(SIX, LINK)
    assert rail == Rail(
        0, NetworkAttachment("default", "backend-network", "net1"), "net1", IP, 6, 64, 9000, ()
    )


def test_unique_local_addresses_are_global() -> None:
    ula = Address("fd00:1::1", 64, 6)
    assert choose(ula, entry=replace(ENTRY, ips=("fd00:1::1",))).address == "fd00:1::1"


def test_ipv4_alone_says_so() -> None:
    rail = choose(FOUR, LINK, entry=HOST)
    assert (rail.address, rail.family, rail.attachment) == ("10.9.0.1", 4, None)
    assert "no global IPv6" in rail.notes[0]
    assert "10.9.0.1" in rail.notes[0]
    assert choose(FOUR, entry=HOST, family="ipv4").notes == ()


@pytest.mark.parametrize("family", ["auto", "ipv6"])
def test_ipv4_beside_ipv6_is_refused_since_gloo_takes_ipv4(family: Family) -> None:
    error = refused(FOUR, SIX, LINK, family=family)
    assert "10.9.0.1/24" in error.text
    assert f"{IP}/64" in error.text
    assert "Gloo" in error.text
    assert "--family ipv4" in error.fix
    assert "from the attachment" in error.fix


def test_ipv4_beside_ipv6_by_family_ipv4() -> None:
    rail = choose(FOUR, SIX, entry=replace(ENTRY, ips=("10.9.0.1", IP)), family="ipv4")
    assert rail.address == "10.9.0.1"
    assert IP in rail.notes[0]


def test_family_that_is_not_there() -> None:
    assert f"--family ipv4, but it has only {IP}" in refused(SIX, family="ipv4").text
    assert "--family ipv6, but it has only 10.9.0.1" in refused(FOUR, entry=HOST, family="ipv6").text


def test_no_entry() -> None:
    assert "no entry" in refused(SIX, entry=None).text
    assert "names no interface" in refused(SIX, entry=replace(ENTRY, interface=None)).text


def test_missing_in_the_kernel() -> None:
    with pytest.raises(NetworkError) as caught:
        select_rail("node-1", 0, ENTRY.name, ENTRY, None, "auto")
    assert caught.value.text == "node-1: net1 (default/backend-network): the kernel has no such interface"
    assert "ip link" in caught.value.fix


def test_other_interface() -> None:
    error = refused(SIX, name="net2")
    assert "net1" in error.text
    assert "net2" in error.text


def test_down_and_without_carrier() -> None:
    error = refused(SIX, up=False, carrier=False)
    assert "is down" in error.text
    assert error.fix == "ip link set net1 up"
    assert "no carrier" in refused(SIX, carrier=False).text


def test_address_removed() -> None:
    error = refused(LINK)
    assert "only link-local addresses (fe80::1/64)" in error.text
    assert IP in error.text
    assert "recreate" in error.fix
    assert "no address" in refused().text


def test_link_local_only_by_name() -> None:
    error = refused(LINK, entry=HOST)
    assert "only link-local" in error.text
    assert "ip address add ADDRESS/64 dev net1" in error.fix
    assert "only link-local" in refused(Address("169.254.3.4", 16, 4), entry=HOST).text


def test_tentative_is_told_apart() -> None:
    with pytest.raises(TentativeError) as caught:
        choose(replace(SIX, tentative=True), LINK)
    assert (caught.value.interface, caught.value.address, caught.value.exit_code) == ("net1", IP, 4)
    assert "node-1" in caught.value.text
    assert choose(SIX, replace(LINK, tentative=True)).address == IP


def test_dadfailed_is_final() -> None:
    error = refused(replace(SIX, dadfailed=True, tentative=True))
    assert isinstance(error, TakenError)
    assert error.exit_code == 4
    assert IP in error.text
    assert "another machine" in error.text


def test_dadfailed_of_the_other_family_does_no_harm() -> None:
    both = replace(ENTRY, ips=("10.9.0.1", IP))
    assert choose(FOUR, replace(SIX, dadfailed=True), entry=both, family="ipv4").address == "10.9.0.1"


def test_status_and_kernel_disagree() -> None:
    error = refused(OTHER_SIX, LINK)
    assert IP in error.text
    assert OTHER_SIX.ip in error.text
    half = refused(SIX, entry=replace(ENTRY, ips=(IP, "10.9.0.1")))
    assert "10.9.0.1 is missing" in half.text


def test_status_names_the_other_family_only() -> None:
    error = refused(FOUR, SIX, family="ipv4")
    assert IP in error.text
    assert "10.9.0.1" in error.text
    assert "--family" in error.fix


def test_spelling_is_no_disagreement() -> None:
    assert choose(Address("FCBB:0:0800:FFFF::0001", 64, 6)).address == IP


def test_several_global_refused_by_name() -> None:
    error = refused(SIX, OTHER_SIX)  # both permanent
    assert IP in error.text
    assert OTHER_SIX.ip in error.text
    assert "Gloo uses the first" in error.text
    assert "accept_ra=0" in error.fix
    assert "several" in refused(SIX, SLAAC, entry=HOST).text  # nothing names one


def test_several_global_resolved() -> None:
    rail = choose(SIX, SLAAC, LINK)
    assert rail.address == IP
    assert SLAAC.ip in rail.notes[0]


def test_several_global_where_gloo_takes_the_advertised_one() -> None:
    assert "several" in refused(SLAAC, SIX).text


def test_two_of_several_named() -> None:
    assert (
        "several"
        in refused(
            SIX, replace(OTHER_SIX, permanent=False), entry=replace(ENTRY, ips=(IP, OTHER_SIX.ip))
        ).text
    )


def test_deprecated_and_other_facts_are_noted() -> None:
    entry = replace(ENTRY, mac="02:00:00:00:00:99", mtu=1500)
    notes = "\n".join(choose(replace(SIX, deprecated=True), entry=entry).notes)
    assert "deprecated" in notes
    assert "02:00:00:00:00:99" in notes
    assert "MTU 1500, but the kernel 9000" in notes
    assert choose(SIX, entry=replace(ENTRY, mac="02:00:00:00:00:01".upper())).notes == ()


@pytest.mark.parametrize("family", ["auto", "ipv4"])
def test_a_named_network_of_the_host_chooses_family_and_address(family: Family) -> None:
    four = replace(HOST, network="10.9.0.0/16")
    second = Address("192.168.7.1", 24, 4)
    rail = choose(SIX, FOUR, second, LINK, entry=four, family=family)
    assert (rail.address, rail.family, rail.prefix) == (FOUR.ip, 4, 24)
    assert second.ip in rail.notes[0]
    assert choose(SIX, SLAAC, entry=replace(HOST, network="fcbb::/16"), family="auto").address == IP
    # As the training container gets it from the preparation.
    assert choose(SIX, FOUR, second, entry=replace(HOST, ips=(FOUR.ip,)), family=family).address == FOUR.ip


@pytest.mark.parametrize(
    ("addresses", "network", "family", "named"),
    [
        ((Address("192.168.7.1", 24, 4), FOUR), "10.9.0.0/16", "auto", "192.168.7.1"),
        ((SIX, FOUR), "10.9.0.0/16", "ipv6", IP),
        ((SIX, FOUR), "fcbb::/16", "auto", "host:NETWORK/LENGTH"),
        ((SIX,), "10.9.0.0/16", "auto", "10.9.0.0/16"),
        ((FOUR, Address("10.9.0.7", 24, 4)), "", "auto", "host:NETWORK/LENGTH"),
    ],
)
def test_what_a_host_cannot_give_is_refused_with_a_fix_for_hosts(
    addresses: tuple[Address, ...], network: str, family: Family, named: str
) -> None:
    error = refused(*addresses, entry=replace(HOST, network=network), family=family)
    assert named in error.text + error.fix
    assert not [word for word in ("attachment", "accept_ra", "pod", "status") if word in error.fix]


LO = Interface(
    "lo",
    1,
    "00:00:00:00:00:00",
    65536,
    True,
    True,
    (Address("127.0.0.1", 8, 4, "host"), Address("::1", 128, 6, "host")),
)


def test_loopback_only_where_it_was_asked_for() -> None:
    rail = select_rail("n", 0, "host:lo", StatusEntry("host:lo", "lo"), LO, "auto")
    assert (rail.address, rail.interface) == ("127.0.0.1", "lo")
    assert "no second network" in rail.notes[0]
    with pytest.raises(NetworkError):
        select_rail("n", 0, "default/x", StatusEntry("default/x", "lo", ("127.0.0.1",)), LO, "auto")
    with pytest.raises(NetworkError, match="Gloo"):
        select_rail("n", 0, "host:lo", StatusEntry("host:lo", "lo"), LO, "ipv6")
    with pytest.raises(NetworkError):
        choose(Address("127.0.0.1", 8, 4, "host"), entry=HOST)


def test_hostile_names_are_escaped() -> None:
    hostile = "\x1b[31m\n\u202e"
    with pytest.raises(NetworkError) as caught:
        select_rail(hostile, 0, hostile, StatusEntry(hostile, hostile, ("::2",)), None, "auto")
    assert caught.value.text.isprintable()


ADDRESSES = st.builds(
    Address,
    ip=st.sampled_from([IP, OTHER_SIX.ip, "fd00::1", "fe80::1", "2001:db8::1"]),
    prefix=st.just(64),
    family=st.just(6),
    scope=st.sampled_from(["global", "link"]),
    tentative=st.booleans(),
    dadfailed=st.booleans(),
    permanent=st.booleans(),
) | st.builds(Address, ip=st.sampled_from(["10.9.0.1", "169.254.0.1"]), prefix=st.just(24), family=st.just(4))


@given(
    st.lists(ADDRESSES, max_size=4),
    st.lists(st.sampled_from([IP, OTHER_SIX.ip, "10.9.0.1"]), max_size=2),
    st.sampled_from(["auto", "ipv4", "ipv6"]),
    st.sampled_from(["", "", "10.9.0.0/16", "fcbb::/16", "::/0"]),
)
def test_a_rail_is_always_what_gloo_takes(
    addresses: list[Address], ips: list[str], family: Family, network: str
) -> None:
    """Gloo listens on the first IPv4 address of the interface, or the first IPv6 one: never on another."""
    ips = [] if network else ips
    entry = replace(HOST, network=network) if network else replace(ENTRY, ips=tuple(ips))
    try:
        rail = choose(*addresses, entry=entry, family=family)
    except NetworkError:
        return
    usable = [a for a in addresses if a.scope == "global" and not a.ip.startswith(("fe80", "169.254"))]
    gloo = next((a for a in usable if a.family == 4), None) or usable[0]
    assert rail.address == gloo.ip
    assert rail.family == {"ipv4": 4, "ipv6": 6, "auto": gloo.family}[family]
    assert not gloo.tentative
    assert not gloo.dadfailed
    assert not ips or rail.address in ips
