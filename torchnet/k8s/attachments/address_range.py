"""The addresses that an IPAM plugin allocates, as its configuration defines them (pure).

Sources:
    whereabouts v0.9.4: pkg/config/config.go (LoadIPAMConfig), pkg/iphelpers/iphelpers.go (GetIPRange)
    containernetworking/plugins v1.9.1: plugins/ipam/host-local/backend/allocator/range.go (Canonicalize)
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torchnet.k8s.addons.ip_ranges import Address, Network
from torchnet.k8s.attachments.cni_config import Body, CniConfig, Path, text_of

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
_PREFIX = re.compile(r"[0-9a-fA-F:.]{1,45}/[0-9]{1,3}")


@dataclass(frozen=True)
class AddressRange:
    """The addresses from ``first`` to ``last`` of a network, as numbers, without those that are excluded."""

    network: Network
    first: int
    last: int
    excluded: tuple[Network, ...] = ()

    @property
    def capacity(self) -> int:
        """How many addresses can be allocated."""
        count = max(0, self.last - self.first + 1)
        inside = [one for one in self.excluded if one.version == self.network.version]
        for one in ipaddress.collapse_addresses(inside):  # type: ignore[type-var]  # all of one version
            low, high = int(one.network_address), int(one.broadcast_address)
            count -= max(0, min(high, self.last) - max(low, self.first) + 1)
        return max(0, count)

    def __contains__(self, address: Address) -> bool:
        return (
            address.version == self.network.version
            and self.first <= int(address) <= self.last
            and not any(address in one for one in self.excluded if one.version == address.version)
        )

    def overlaps(self, other: AddressRange) -> bool:
        """Whether the two ranges share addresses, excluded ones not counted."""
        return (
            self.network.version == other.network.version
            and self.first <= other.last
            and other.first <= self.last
        )

    def covers(self, other: AddressRange) -> bool:
        """Whether this range of the same network has all addresses of the other one."""
        bounds = self.first <= other.first and other.last <= self.last
        return bounds and set(self.excluded) <= set(other.excluded)

    def __str__(self) -> str:
        return str(self.network)

    @property
    def bounds(self) -> str:
        """The network, or FIRST-LAST/LENGTH if less of it is allocated."""
        network = self.network
        first, last = self.first - int(network.network_address), int(network.broadcast_address) - self.last
        if first <= 1 and last <= 1:
            return str(network)
        low, high = (
            network.network_address + (one - int(network.network_address)) for one in (self.first, self.last)
        )
        return f"{low}-{high}/{network.prefixlen}"


Owned = tuple[int, AddressRange]


def overlaps(ranges: Iterable[Owned]) -> Iterator[tuple[Owned, Owned]]:
    """Yield pairs of ranges of different owners that overlap: at most one for each range, and one if there are any."""
    last: Owned | None = None  # the one that ends last
    for item in sorted(ranges, key=lambda item: (item[1].network.version, item[1].first)):
        owner, found = item
        if last is not None and last[0] != owner and last[1].overlaps(found):
            yield last, item
        if last is None or last[1].network.version != found.network.version or found.last >= last[1].last:
            last = item


def interface(text: object, *, sloppy: bool = False) -> Interface:
    """Parse an address with its prefix length, as Go's ParseCIDR does.

    Args:
        sloppy: Accept leading zeros in IPv4 addresses.

    Raises:
        ValueError: The text is none.
    """
    if not isinstance(text, str) or not _PREFIX.fullmatch(text):
        raise ValueError("is not an address with its prefix length, such as fcbb:0:800:ffff::/64")
    try:
        return ipaddress.ip_interface(_plain(text) if sloppy else text)
    except ValueError:
        raise ValueError("is not an address with its prefix length, such as fcbb:0:800:ffff::/64") from None


def address(text: object, *, sloppy: bool = False) -> Address:
    """Parse an address without prefix length or zone.

    Raises:
        ValueError: The text is none.
    """
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-fA-F:.]{1,45}", text):
        raise ValueError("is not an IP address")
    try:
        found = ipaddress.ip_address(_plain(text) if sloppy else text)
    except ValueError:
        raise ValueError("is not an IP address") from None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found  # as Go's To4()


def _plain(text: str) -> str:
    return re.sub(r"(^|\.)0+(?=\d)", r"\1", text) if ":" not in text else text


def whereabouts_range(one: Body, *, is_sliced: bool = False) -> AddressRange:
    """Return the range of Whereabouts that an object with ``range`` defines.

    A ``range_start`` or ``range_end`` that is invalid or not in the range has no effect, as in Whereabouts.

    Args:
        one: The object.
        is_sliced: Each node has a part of the range (``node_slice_size``): bounds and ``exclude`` have no effect.

    Raises:
        ValueError: Whereabouts refuses the range; the text completes a sentence about its field.
    """
    text = one.get("range")
    start, end = one.get("range_start"), one.get("range_end")
    if isinstance(text, str) and "-" in text:
        start, _, last = text.partition("-")
        whole = interface(last, sloppy=True)
        if address(start, sloppy=True) not in whole.network:
            raise ValueError(f"does not begin in its network {whole.network}")
        end = str(whole.ip)
    else:
        whole = interface(text, sloppy=True)
    network = whole.network
    if network.max_prefixlen - network.prefixlen < 2:
        raise ValueError("has no usable address; at least 2 bits must be left for addresses")
    first, last_one = int(network.network_address) + 1, int(network.broadcast_address) - 1
    if is_sliced:
        return AddressRange(network, first, last_one)
    if (given := _inside(start, network, first, last_one)) is not None:
        first = given
    if (given := _inside(end, network, first, last_one)) is not None:
        last_one = given
    excluded = one.get("exclude")
    if excluded is not None and not isinstance(excluded, list):
        raise ValueError("is not a list")
    return AddressRange(network, first, last_one, tuple(exclusion(part) for part in excluded or ()))


def exclusion(text: object) -> Network:
    """Parse an entry of Whereabouts' ``exclude``: a network or one address.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(text, str) and "/" not in text:
        return ipaddress.ip_network(address(text))
    return interface(text).network


def _inside(text: object, network: Network, first: int, last: int) -> int | None:
    try:
        found = address(text, sloppy=True)
    except ValueError:
        return None
    return int(found) if found.version == network.version and first <= int(found) <= last else None


def host_local_range(one: Body) -> AddressRange:
    """Return the range of host-local that an object with ``subnet`` defines.

    Raises:
        ValueError: host-local refuses it; the text completes a sentence about the range.
    """
    whole = interface(one.get("subnet"))
    network = whole.network
    if network.max_prefixlen - network.prefixlen < 2:
        raise ValueError(f"has no usable address: {network} is too small")
    if whole.ip != network.network_address:
        raise ValueError(f"has host bits set; the network is {network}")
    first = int(network.network_address) + 1
    last = int(network.broadcast_address) - (network.version == 4)
    if one.get("rangeStart") not in (None, ""):
        first = _bound(one["rangeStart"], network, "rangeStart")
    if one.get("rangeEnd") not in (None, ""):
        last = _bound(one["rangeEnd"], network, "rangeEnd")
    if last < first:
        raise ValueError("ends before its start")
    gateway = network.network_address + 1
    if one.get("gateway") not in (None, ""):
        gateway = address(one["gateway"])
    return AddressRange(network, first, last, (ipaddress.ip_network(gateway),))


def _bound(text: object, network: Network, name: str) -> int:
    try:
        found = address(text)
    except ValueError as error:
        raise ValueError(f"has a {name} that {error}") from None
    if found not in network:
        raise ValueError(f"has a {name} that is not in {network}")
    return int(found)


def has_node_slices(ipam: Body) -> bool:
    """Whether Whereabouts allocates from a part of the range for each node."""
    return bool(ipam.get("node_slice_size"))


def whereabouts_parts(ipam: Body) -> Iterator[tuple[Path, Body]]:
    """Yield the objects that define Whereabouts' ranges, with their paths in the IPAM configuration."""
    if text_of(ipam, "range"):
        yield (), ipam
    more = ipam.get("ipRanges")
    for index, one in enumerate(more if isinstance(more, list) else []):
        if isinstance(one, dict):
            yield ("ipRanges", index), one


def host_local_parts(ipam: Body) -> Iterator[tuple[Path, Body]]:
    """Yield the objects that define host-local's ranges, with their paths in the IPAM configuration."""
    if ipam.get("subnet") is not None:
        yield (), ipam
    sets = ipam.get("ranges")
    for number, one_set in enumerate(sets if isinstance(sets, list) else []):
        for index, one in enumerate(one_set if isinstance(one_set, list) else []):
            if isinstance(one, dict):
                yield ("ranges", number, index), one


def host_local_sets(ipam: Body) -> list[list[AddressRange]]:
    """Return the range sets of host-local: a pod gets one address of each. What it refuses is left out."""
    sets: dict[Path, list[AddressRange]] = {}
    for path, one in host_local_parts(ipam):
        try:
            sets.setdefault(path[:-1], []).append(host_local_range(one))
        except ValueError:
            continue
    return list(sets.values())


def address_ranges(config: CniConfig) -> tuple[AddressRange, ...]:
    """Return the ranges that the IPAM plugin allocates from; those that it refuses are left out."""
    reader: Any
    if config.ipam_type == "whereabouts":
        parts = whereabouts_parts(config.ipam)
        reader = partial(whereabouts_range, is_sliced=has_node_slices(config.ipam))
    elif config.ipam_type == "host-local":
        parts, reader = host_local_parts(config.ipam), host_local_range
    else:
        return ()
    found = []
    for _, one in parts:
        try:
            found.append(reader(one))
        except ValueError:
            continue
    return tuple(found)
