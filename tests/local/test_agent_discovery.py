"""Discovery in a real namespace: what the source says and what the kernel has must agree, rail by rail."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.agents import spec
from tests.namespaces import Space, cable, ip, isolated
from torchnet.agent import discovery
from torchnet.agent.command_line import parse, spec_of
from torchnet.agent.discovery import discover, own_row, sure_attachments
from torchnet.agent.source_selection import source_of
from torchnet.errors import NetworkError
from torchnet.launcher.loopback_source import LoopbackSource
from torchnet.network.address_sources import HostInterfaces, MultusStatus
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.network_status import StatusEntry, render

FAR = "fd00::2/64"
NET, OTHER = NetworkAttachment("ml", "net", "net1"), NetworkAttachment("ml", "other", "net2")


def told(**fields: Any) -> Any:
    return spec(Path("/nowhere"), 0, 2, attachments=(), **fields)


def status(*rails: tuple[str, tuple[str, ...]]) -> MultusStatus:
    entries = [StatusEntry(name="ns/net", interface=name, ips=ips) for name, ips in rails]
    return MultusStatus(render(tuple(entries)), None)


@isolated
def test_both_families_are_chosen_from_or_refused_with_the_reason() -> None:
    cable("net1", "net1", Space(), addresses=(("fd00::1/64", FAR), ("10.7.0.1/24", "10.7.0.2/24")))
    source = status(("net1", ("10.7.0.1", "fd00::1")))
    (rail,) = discover(told(family="ipv4"), source)
    assert (rail.interface, rail.address, rail.family, rail.prefix, rail.mtu) == (
        "net1",
        "10.7.0.1",
        4,
        24,
        1500,
    )
    for family in ("auto", "ipv6"):
        with pytest.raises(NetworkError, match="IPv4 .*10.7.0.1/24.* IPv6 .*fd00::1/64") as caught:
            discover(told(family=family), source)
        assert "--family ipv4" in caught.value.fix
    ip("address del 10.7.0.1/24 dev net1")
    with pytest.raises(NetworkError, match="network-status has 10.7.0.1, fd00::1"):
        discover(told(family="ipv6"), source)
    (rail,) = discover(told(), status(("net1", ("fd00::1",))))
    assert (rail.address, rail.notes) == ("fd00::1", ())


@isolated
def test_a_named_network_of_the_host_selects_the_address() -> None:
    both = (("10.10.3.1/24", "10.10.3.2/24"), ("192.168.7.1/24", "192.168.7.2/24"), ("fd00::1/64", FAR))
    cable("ens5", "ens5", Space(), addresses=both)
    options = parse(["--network", "host:10.10.0.0/16", "x.py"])
    (rail,) = discover(told(), source_of(options, spec_of(options, joins=False)))
    assert (rail.interface, rail.address, rail.family) == ("ens5", "10.10.3.1", 4)
    with pytest.raises(NetworkError, match="both IPv4") as caught:
        discover(told(), HostInterfaces("host:ens5", ()))
    assert "host:NETWORK/LENGTH" in caught.value.fix


@isolated
def test_all_rails_that_are_wrong_are_told_at_once() -> None:
    far = Space()
    cable("net1", "net1", far, addresses=(("fd00::1/64", FAR),))
    cable("net2", "net2", far, addresses=(("fd01::1/64", "fd01::2/64"),))
    ip("link set net2 down")
    source = status(("net1", ("fd00::9",)), ("net2", ("fd01::1",)), ("net3", ("fd02::1",)))
    with pytest.raises(NetworkError) as caught:
        discover(told(), source)
    first, second, third = caught.value.text.splitlines()
    assert "net1" in first
    assert "fd00::9 is missing" in first
    assert "net2 (ns/net): it is down" in second
    assert "net3 (ns/net): the kernel has no such interface" in third
    assert len(caught.value.fix.splitlines()) == 3


@isolated
def test_duplicate_detection_is_waited_for_and_no_longer_than_it_may_take() -> None:
    far = Space()
    cable("net1", "net1", far)
    ip("address add fd00::1/64 dev net1")
    began = time.monotonic()
    (rail,) = discover(told(), HostInterfaces("host:net1", ()))
    assert rail.address == "fd00::1"
    assert time.monotonic() - began > 0.3
    with far:
        ip("address add fd00::5/64 dev net1 nodad")
    ip("address del fd00::1/64 dev net1")
    ip("address add fd00::5/64 dev net1")
    with pytest.raises(NetworkError, match="duplicate address detection failed for fd00::5/64"):
        discover(told(), HostInterfaces("host:net1", ()))
    # A kernel that asks for very long is not waited for.
    discovery.DETECTION_SECONDS = 0.5
    Path("/proc/sys/net/ipv6/conf/net1/dad_transmits").write_text("30")
    ip("address del fd00::5/64 dev net1")
    ip("address add fd00::6/64 dev net1")
    began = time.monotonic()
    with pytest.raises(NetworkError, match="fd00::6/64 is still tentative"):
        discover(told(), HostInterfaces("host:net1", ()))
    assert 0.5 <= time.monotonic() - began < 3


@isolated
def test_an_address_with_a_lifetime_or_a_deprecated_one_leaves_a_doubt() -> None:
    far = Space()
    cable("net1", "net1", far, addresses=(("fd00::1/64", FAR),))
    cable("net2", "net2", far)
    one = spec(Path("/nowhere"), 1, 2, attachments=(NET,))
    assert sure_attachments(one) == (StatusEntry("ml/net", "net1"),)
    two = spec(Path("/nowhere"), 1, 2, attachments=(NET, OTHER))
    for words in ("valid_lft 3600 preferred_lft 3600", "preferred_lft 0"):
        ip(f"address add fd01::1/64 dev net2 nodad {words}")
        assert sure_attachments(two) is None  # one that a router made, or that is on its way out
        ip("address del fd01::1/64 dev net2")
    ip("address add fd01::1/64 dev net2 nodad")
    found = sure_attachments(two)
    assert found is not None
    assert [entry.interface for entry in found] == ["net1", "net2"]


@isolated
def test_a_kernel_that_does_not_tell_its_interfaces_is_an_error_and_leaves_a_doubt() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    one = spec(Path("/nowhere"), 1, 2, attachments=(NET,))
    assert sure_attachments(one) is None
    for told, source in (
        (one, HostInterfaces("host:net1", ())),
        (replace(one, loopback=True), LoopbackSource(1)),
    ):
        with pytest.raises(NetworkError, match="^node-1: .*: Too many"):
            discover(told, source)


@isolated
def test_a_row_tells_the_backend_and_the_other_addresses_apart() -> None:
    far = Space()
    cable("net1", "net1", far, addresses=(("fd00::1/64", FAR),))
    cable("eth0", "eth0", far, addresses=(("172.30.0.1/16", "172.30.0.2/16"), ("fd99::1/64", "fd99::2/64")))
    one = told()
    row = own_row(one, discover(one, HostInterfaces("host:net1", ())))
    assert [(rail.interface, rail.address, rail.mtu) for rail in row.rails] == [("net1", "fd00::1", 1500)]
    # Every other address that bytes for this worker could go to, link-local ones too.
    assert {"172.30.0.1", "fd99::1"} <= set(row.eth0)
    assert "fd00::1" not in row.eth0
    assert not [address for address in row.eth0 if address.startswith("127.") or address == "::1"]
    assert (row.node_rank, row.name) == (0, "node-0")
    # kube-proxy's interface with the addresses of all Services is down, and does not displace the others.
    ip("link add ipvs0 type bridge")
    for number in range(40):
        ip(f"address add 10.96.{number}.1/32 dev ipvs0")
    more = own_row(one, discover(one, HostInterfaces("host:net1", ())))
    assert more.eth0[: len(row.eth0)] == row.eth0
    assert len(more.eth0) == 32
