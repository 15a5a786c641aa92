"""Which addresses an IPAM plugin allocates: compared with a walk as the plugins do it."""

from __future__ import annotations

import ipaddress
import time
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.k8s.attachments.address_range import (
    AddressRange,
    address,
    host_local_range,
    interface,
    overlaps,
    whereabouts_range,
)


def walked(one: dict[str, Any]) -> list[str]:
    """As Whereabouts does: from the first usable address to the last one, over excluded networks."""
    network: Any = ipaddress.ip_network(one["range"], strict=False)
    low, high = network.network_address + 1, network.broadcast_address - 1
    if "range_start" in one and low <= ipaddress.ip_address(one["range_start"]) <= high:
        low = ipaddress.ip_address(one["range_start"])
    if "range_end" in one and low <= ipaddress.ip_address(one["range_end"]) <= high:
        high = ipaddress.ip_address(one["range_end"])
    excluded = [ipaddress.ip_network(part) for part in one.get("exclude", ())]
    found = []
    while low <= high:
        skip = next((part.broadcast_address for part in excluded if low in part), None)
        if skip is None:
            found.append(str(low))
        low = (skip or low) + 1
    return found


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    base = draw(st.sampled_from(["10.9.0.0", "fd00::"]))
    network = ipaddress.ip_network(
        f"{base}/{ipaddress.ip_address(base).max_prefixlen - draw(st.integers(2, 6))}"
    )
    inside = st.integers(0, network.num_addresses - 1).map(lambda number: str(network[number]))
    one: dict[str, Any] = {"range": str(network)}
    for key in ("range_start", "range_end"):
        if draw(st.booleans()):
            one[key] = draw(inside)
    lengths = st.integers(network.max_prefixlen - 3, network.max_prefixlen)
    part = st.builds(
        lambda text, length: str(ipaddress.ip_network(f"{text}/{length}", strict=False)), inside, lengths
    )
    one["exclude"] = draw(st.lists(part, max_size=3))
    return one


@given(ranges())
def test_whereabouts_allocates_these(one: dict[str, Any]) -> None:
    found = whereabouts_range(one)
    assert found.capacity == len(walked(one))
    network = ipaddress.ip_network(one["range"])
    assert [str(host) for host in network if host in found] == walked(one)


@pytest.mark.parametrize(
    ("one", "count"),
    [
        ({"subnet": "10.9.0.0/24"}, 253),  # the gateway is .1
        ({"subnet": "fd00::/126"}, 2),
        ({"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.10", "rangeEnd": "10.9.0.19"}, 10),
        ({"subnet": "10.9.0.0/24", "gateway": "10.9.0.7"}, 253),
        ({"subnet": "10.9.0.0/24", "gateway": "", "rangeStart": "", "rangeEnd": ""}, 253),
    ],
)
def test_host_local_allocates_so_many(one: dict[str, Any], count: int) -> None:
    assert host_local_range(one).capacity == count


def test_a_whole_64_is_no_walk() -> None:
    assert whereabouts_range({"range": "fcbb:0:0800:ffff::/64"}).capacity == (1 << 64) - 2


@pytest.mark.parametrize(
    "text", [None, 7, "", "10.9.0.1", "fe80::1%eth0/64", "10.9.0.1/ 24", "10.9.0.1/+2", "a/b"]
)
def test_what_is_no_network(text: object) -> None:
    with pytest.raises(ValueError, match="is not an address with its prefix length"):
        interface(text)


@pytest.mark.parametrize("text", [None, 7, "", "10.9.0.1/24", "fe80::1%eth0", "10.9.0", "x"])
def test_what_is_no_address(text: object) -> None:
    with pytest.raises(ValueError, match="is not an IP address"):
        address(text)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 6)), max_size=8))
def test_an_overlap_is_found_if_there_is_one(parts: list[tuple[int, int, int]]) -> None:
    network = ipaddress.ip_network("10.9.0.0/24")
    owned = [(owner, AddressRange(network, first, first + more)) for owner, first, more in parts]
    pairs = [
        (one, other)
        for one, other in combinations(owned, 2)
        if one[0] != other[0] and one[1].overlaps(other[1])
    ]
    found = list(overlaps(owned))
    assert bool(found) is bool(pairs)
    assert all(pair in pairs or pair[::-1] in pairs for pair in found)
    assert len(found) <= len(owned)


def test_an_attachment_of_the_largest_size_is_compared_in_a_second() -> None:
    """A megabyte has some 30,000 ranges; compared two by two, they take minutes."""
    network = ipaddress.ip_network("10.0.0.0/8")
    owned = [(number, AddressRange(network, number, number)) for number in range(30_000)]
    began = time.monotonic()
    assert list(overlaps(owned)) == []
    assert len(list(overlaps([*owned, (-1, AddressRange(network, 0, 29_999))]))) == 30_000
    assert time.monotonic() - began < 10
