"""Address ranges, as users write them and as IPAM plugins require them. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


_VALID = "valid: a network with its prefix length, such as fcbb:0:800:ffff::/64"


def parse_part(text: str) -> Network:
    """Parse a network such as ``fcbb:0:0800:ffff::/64``; host bits are dropped.

    Raises:
        ValueError: The text is not a network; the message says what is valid.
    """
    if "/" not in text or not text.isascii() or "%" in text:
        raise ValueError(_VALID)
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_VALID) from None


def parse_range(text: str) -> Network:
    """Parse a network to allocate addresses from, as `parse_part` does.

    Raises:
        ValueError: The text is not a network, or the network has fewer than 4 addresses, a prefix length below 8, or is
            reserved (multicast, loopback, link-local, unspecified).
    """
    network = parse_part(text)
    if network.num_addresses < 4:
        raise ValueError(f"it has {network.num_addresses} addresses; a second network needs at least 4")
    if network.prefixlen < 8:
        raise ValueError("the range is too large; valid: a prefix length of at least 8")
    for what in ("is_multicast", "is_loopback", "is_link_local", "is_unspecified"):
        if getattr(network, what):
            kind = what.removeprefix("is_").replace("_", "-")
            raise ValueError(f"{network} is {kind}; valid: a private or global network")
    return network


def parse_address(text: str) -> Address:
    """Parse the address of a host.

    Raises:
        ValueError: The text is not an address that other hosts can reach.
    """
    try:
        address = ipaddress.ip_address(text) if text.isascii() and "%" not in text else None
    except ValueError:
        address = None
    if address is None or address.is_multicast or address.is_loopback or address.is_unspecified:
        raise ValueError("valid: the address of a node, such as fcbb:0:800::11")
    return address


def within(part: Network, whole: Network) -> bool:
    """Whether all of ``part`` is in ``whole``."""
    return part.version == whole.version and part.network_address in whole and part.broadcast_address in whole


def overlap(one: Network, other: Network) -> bool:
    """Whether the two networks share an address."""
    return one.version == other.version and (one.network_address in other or other.network_address in one)


def spanning(parts: Sequence[Network]) -> Network | None:
    """Return the smallest network that holds all parts; None if it can be no range, as with both families."""
    if not parts or len({one.version for one in parts}) > 1:
        return None
    whole = parts[0]
    while not all(within(one, whole) for one in parts):
        whole = whole.supernet()
    try:
        return parse_range(str(whole))
    except ValueError:
        return None


def ends(part: Network, whole: Network) -> tuple[Address, Address]:
    """Return the first and last address that can be allocated from ``part``, a slice of the network ``whole``.

    The first address of every slice is left out: of the first slice, it is the subnet-router anycast address
    (RFC 4291 2.6.1), or with IPv4 the network's own. The last address of an IPv4 network is left out because it is the
    broadcast address.
    """
    last = part.broadcast_address
    if part.version == 4 and last == whole.broadcast_address:
        last -= 1
    return part.network_address + 1, last


def upper_half(network: Network) -> Network:
    """Return the upper half of a network.

    Whereabouts allocates the lowest free address, and from an IPv6 /64 only the lower half.
    """
    _, upper = network.subnets(prefixlen_diff=1)
    return upper
