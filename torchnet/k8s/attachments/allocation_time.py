"""How long Whereabouts takes to assign the addresses of a launch (pure).

Whereabouts assigns one address at a time in the whole cluster, because a Lease serializes it: 500 pods took 4.5 minutes
(k8snetworkplumbingwg/whereabouts#110), and 128 pods with 16 networks each exceeded the 4 minutes that the kubelet waits
(#313). A range per node (``node_slice_size``) has a Lease per node.
"""

from __future__ import annotations

from torchnet.units import seconds as duration

_SECONDS_PER_ADDRESS = 270 / 500
_WARNING_SECONDS = 120.0
WAY_OUT = (
    "an attachment with a slice of the range per node (torchnet manifests backend-network --slice NODE=CIDR), or fixed "
    "addresses (--static-ips with an attachment of --ipam static)"
)


def assignment_line(needed: int) -> str:
    """Return a line for the user if the assignment of addresses takes minutes; "" if it does not.

    Args:
        needed: How many addresses the workers need from all ranges that share the Lease.
    """
    estimate = needed * _SECONDS_PER_ADDRESS
    if estimate <= _WARNING_SECONDS:
        return ""
    return (
        "Whereabouts assigns one address after another. At the rate that users have reported (500 in 4.5 min), the "
        f"workers' {needed} addresses take about {duration(round(estimate, -1))}. --start-timeout counts that, and a "
        f"kubelet waits 4 min for a pod's network before it tries again\n  faster: {WAY_OUT}"
    )
