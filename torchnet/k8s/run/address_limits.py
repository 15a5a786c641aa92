"""Limits of Whereabouts for a launch of this size: too small a range, or an allocation that takes minutes (pure).

Whereabouts assigns one address at a time in the whole cluster, because a Lease serializes it: 500 pods took 4.5 minutes
(k8snetworkplumbingwg/whereabouts#110), and 128 pods with 16 networks each exceeded the 4 minutes that the kubelet waits
(#313). A range per node (``node_slice_size``) has a Lease per node.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

from torchnet.errors import NetworkError
from torchnet.text import printable
from torchnet.units import seconds as duration

_SECONDS_PER_ADDRESS = 270 / 500
_WARNING_SECONDS = 120.0
_WAY_OUT = (
    "an attachment with a slice of the range per node (torchnet manifests backend-network --slice NODE=CIDR), or fixed "
    "addresses (--static-ips)"
)


def check_addresses(attachment: str, config: str, needed: int) -> str:
    """Check that an attachment has enough addresses for all workers.

    Args:
        attachment: its name, NAMESPACE/NAME.
        config: the configuration in the NetworkAttachmentDefinition, which need not be valid.
        needed: how many addresses the workers need.

    Returns:
        A line for the user if the assignment takes minutes; "" if it does not, or if nothing is known about it.

    Raises:
        NetworkError: a range has fewer addresses than the workers need.
    """
    for ipam in _whereabouts(config):
        for text, count in _ranges(ipam):
            if count < needed:
                raise NetworkError(
                    f"network attachment {attachment}: Whereabouts has {count} addresses in {printable(text, 80)}, and "
                    f"the workers need {needed}",
                    fix=f"a larger range, fewer workers (--nnodes), or {_WAY_OUT}",
                )
        estimate = needed * _SECONDS_PER_ADDRESS
        if estimate > _WARNING_SECONDS and not ipam.get("node_slice_size"):
            return (
                f"network attachment {attachment}: Whereabouts assigns one address after another. At the rate that "
                f"users have reported (500 in 4.5 min), the workers' {needed} addresses take about "
                f"{duration(round(estimate, -1))}. --start-timeout counts that, and a kubelet waits 4 min for "
                f"a pod's network before it tries again\n  faster: {_WAY_OUT}"
            )
    return ""


def _whereabouts(config: str) -> Iterator[dict[str, Any]]:
    """Yield the IPAM configurations of an attachment that are Whereabouts'."""
    try:
        body = json.loads(config or "{}")
    except (ValueError, RecursionError):
        return
    plugins = body.get("plugins", [body]) if isinstance(body, dict) else []
    for plugin in plugins if isinstance(plugins, list) else []:
        ipam = plugin.get("ipam") if isinstance(plugin, dict) else None
        if isinstance(ipam, dict) and ipam.get("type") == "whereabouts":
            yield ipam


def _ranges(ipam: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield each range of which a pod gets an address, and how many addresses it has at most."""
    more = ipam.get("ipRanges")
    for one in [ipam, *(more if isinstance(more, list) else [])]:
        if isinstance(one, dict) and isinstance(text := one.get("range"), str):
            try:
                yield text, _count(one, text)
            except (ValueError, TypeError):
                pass  # the plugin decides what it means, if anything


def _count(one: dict[str, Any], text: str) -> int:
    """The addresses of a range, as FIRST-LAST/LENGTH or NETWORK/LENGTH, without the excluded ones.

    Raises:
        ValueError: It is not a range.
    """
    ends, _, length = text.partition("/")
    start, _, end = ends.partition("-")
    network = ipaddress.ip_network(f"{start}/{length}", strict=False)
    first, last = int(network.network_address), int(network.broadcast_address)
    if last - first > 1:
        first, last = first + 1, last - (network.version == 4)
    if end:
        first, last = int(ipaddress.ip_address(start)), int(ipaddress.ip_address(end))
    if one.get("range_start"):
        first = int(ipaddress.ip_address(one["range_start"]))
    if one.get("range_end"):
        last = int(ipaddress.ip_address(one["range_end"]))
    excluded = [ipaddress.ip_network(part, strict=False) for part in one.get("exclude") or ()]
    same = [part for part in excluded if part.version == network.version]
    found = last - first + 1
    for part in ipaddress.collapse_addresses(same):  # type: ignore[type-var]  # all of one version
        inside = min(last, int(part.broadcast_address)) - max(first, int(part.network_address)) + 1
        found -= max(0, inside)
    return max(0, found)
