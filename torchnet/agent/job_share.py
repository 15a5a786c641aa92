"""The backend's share of a job, from its workers' receipts: the last step of the receipt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchnet.agent import share_bounds
from torchnet.agent.accounting import UNKNOWN_INTERFACE
from torchnet.agent.receipt_shape import Share
from torchnet.agent.share_bounds import PeerPayload
from torchnet.agent.spec import AgentSpec
from torchnet.units import size

EXACT = 0.001  # distance of the bounds up to which the share is measured


def share_of(spec: AgentSpec, receipts: Sequence[dict[str, Any]]) -> Share:
    """Return the bounds of the job's share, how they are proven, and why they are no better."""
    if spec.loopback:
        return _unknown("loopback: no network was used")
    if spec.nnodes == 1:
        return _unknown("single node: no network traffic")
    if not receipts:
        return _unknown("no worker left a receipt")
    if any(receipt["proof"] == "unknown" and receipt["interfaces"] for receipt in receipts):
        return _unknown("bytes may have gone where no counter shows them (see the findings)")
    missing = spec.nnodes - len(receipts)
    if missing > 1:
        return _unknown(f"{missing} of {spec.nnodes} workers left no receipt")
    total = sum((_payload(receipt, receipts if missing else ()) for receipt in receipts), one_sided(receipts))
    bounds = share_bounds.share(total)
    if bounds is None:
        if total.backend_high:
            return _unknown(largest_doubt(receipts))
        return _unknown("the workers exchanged nothing")
    low, high = bounds
    if missing:
        return Share(low, high, "inferred", "a worker left no receipt")
    if high - low > EXACT:
        return Share(low, high, "inferred", largest_doubt(receipts, bounds))
    if any(receipt["rdma_bytes"] for receipt in receipts):
        return Share(low, high, "inferred", "RDMA is counted by device, not by peer")
    if any(receipt["findings"] and receipt["proof"] != "measured" for receipt in receipts):
        return Share(low, high, "inferred", "there are doubts about the counts (see the findings)")
    return Share(low, high, "measured", "counted by TCP connection and peer")


def _unknown(reason: str) -> Share:
    return Share(None, None, "unknown", reason)


def _payload(receipt: dict[str, Any], present: Sequence[dict[str, Any]]) -> PeerPayload:
    """Return a worker's limits; what it exchanged with a worker that is not ``present`` counts for both ends."""
    own = PeerPayload(*receipt["payload"])
    names = {one["node"] for one in present}
    if not names:
        return own
    sums = {"backend": 0, "other": 0, UNKNOWN_INTERFACE: 0}
    shown = 0
    for peer in receipt["peers"]:
        count = _bytes(peer)
        shown += count
        if peer["node"] not in names:
            role = receipt["interfaces"].get(peer["interface"], {"role": UNKNOWN_INTERFACE})["role"]
            sums["other" if role == "frontend" else role] += count
    unknown = sums[UNKNOWN_INTERFACE] + sum(one["bytes"] for one in receipt["unattributed"])
    unknown += receipt["peer_bytes"] - shown  # with peers whose rows were left out
    return own + PeerPayload(
        sums["backend"], sums["backend"] + unknown, sums["other"], sums["other"] + unknown
    )


def one_sided(receipts: Sequence[dict[str, Any]]) -> PeerPayload:
    """Return what a worker counted with a peer, but the peer not with it, and cannot have left unattributed.

    The peer knows the worker by another address then, such as that of a Kubernetes Service.
    """
    counted: dict[
        tuple[str, str, str, bool], int
    ] = {}  # by sender, receiver, and who counted it over the backend
    own: dict[str, list[int]] = {}
    listed: dict[str, list[bool]] = {}  # by worker, whether it has all rows elsewhere, and over the backend
    for receipt in receipts:
        node = receipt["node"]
        own[node] = [0, 0]
        listed[node] = [True, not receipt["peers_omitted"]]
        if receipt["peers_omitted"]:  # the last rows, which are those over the backend
            listed[node][0] = any(_on_backend(receipt, peer) for peer in receipt["peers"])
            own[node][1] = receipt["peer_bytes"] - sum(_bytes(peer) for peer in receipt["peers"])
        for peer in receipt["peers"]:
            on_backend = _on_backend(receipt, peer)
            own[node][on_backend] += _bytes(peer)
            for key, what in (("sent", "sent_bytes"), ("received", "received_bytes")):
                place = receipt["node"], peer["node"], key, on_backend
                counted[place] = counted.get(place, 0) + peer[what]
    lacking: dict[tuple[str, bool], int] = {}
    for (node, peer, what, on_backend), count in counted.items():
        if peer in own and listed[peer][on_backend]:
            other = counted.get((peer, node, "received" if what == "sent" else "sent", on_backend), 0)
            lacking[peer, on_backend] = lacking.get((peer, on_backend), 0) + max(0, count - other)
    found = PeerPayload()
    for receipt in receipts:
        _, backend_high, _, elsewhere_high = receipt["payload"]
        spare = (elsewhere_high - own[receipt["node"]][False], backend_high - own[receipt["node"]][True])
        elsewhere, backend = (
            max(0, lacking.get((receipt["node"], on_backend), 0) - max(0, spare[on_backend]))
            for on_backend in (False, True)
        )
        found += PeerPayload(0, backend, 0, elsewhere)
    return found


def _on_backend(receipt: dict[str, Any], peer: dict[str, Any]) -> bool:
    role: str = receipt["interfaces"].get(peer["interface"], {"role": UNKNOWN_INTERFACE})["role"]
    return role == "backend"


def _bytes(peer: dict[str, Any]) -> int:
    return int(peer["sent_bytes"]) + int(peer["received_bytes"])


_REASONS: dict[share_bounds.Reason, str] = {
    "datagrams": "up to {} of UDP on {}",
    "sockets-lost": "{} on {}, where connections closed without their counts",
    "counters-lost": "{} on {}, and the protocols' counters cannot be read",
    "unplaced": "{} on {}, of connections with one end outside the backend",
    "moved": "{} on {}, of connections with addresses of another interface",
    "uncounted": "{} of connections over {}, which no interface counted",
    "remainder": "{} on {} that are not TCP or UDP",
    "rdma-headers": "{} on {}, which may be headers",
    "rdma-shared": "{} on {}, a device that others can use, too",
    "rdma-stray": "{} on {}, a device that is on no rail",
    "unowned": "{} on {}, in connections that ended before their process was seen",
    "unnamed": "{} on {}, with addresses that may be a peer's (--peers)",
}


# What an interface has left beyond its connections can have gone to a peer over that interface alone.
_ONE_INTERFACE: tuple[share_bounds.Reason, ...] = ("datagrams", "sockets-lost", "counters-lost", "remainder")


def largest_doubt(receipts: Sequence[dict[str, Any]], bounds: tuple[float, float] = (0.0, 1.0)) -> str:
    """Describe the largest part of the unattributed bytes, summed over the workers.

    Args:
        bounds: Of the share. If the upper one is 1, what only raises it explains nothing.
    """
    sums: dict[tuple[str, share_bounds.Reason], int] = {}
    for receipt in receipts:
        for one in receipt["unattributed"]:
            if bounds[1] == 1 > bounds[0] and one["reason"] in _ONE_INTERFACE and _on_backend(receipt, one):
                continue
            key = one["interface"], one["reason"]
            sums[key] = sums.get(key, 0) + one["bytes"]
    if not sums:
        return "two workers counted different bytes with each other"
    (interface, reason), count = max(sums.items(), key=lambda item: item[1])
    return doubt(interface, reason, count)


def doubt(interface: str, reason: share_bounds.Reason, count: int) -> str:
    """Describe unattributed bytes."""
    return _REASONS[reason].format(size(count), interface)
