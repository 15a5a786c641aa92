"""Phase 6: the receipt. Each worker builds its own; rank 0 or the launcher combines them into the job's.

`torchnet.agent.receipt_shape` has the shape of both.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torchnet.agent import share_bounds
from torchnet.agent.accounting import HEADER_BYTES, UNKNOWN_INTERFACE, TrafficTotals
from torchnet.agent.events import Failure
from torchnet.agent.link_monitor import LinkFlap
from torchnet.agent.rdma import of_devices
from torchnet.agent.receipt_shape import (
    InterfaceBytes,
    NodeReceipt,
    PeerBytes,
    RailBytes,
    Share,
    WorkerReceipt,
    job_receipt,
    rank_results,
)
from torchnet.agent.share_bounds import SLACK_BYTES, PeerPayload
from torchnet.agent.spec import AgentSpec
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerTable

_TOLERANCE = 0.02  # allowed difference of the two counts
_EXACT = 0.001  # distance of the bounds up to which the share is measured
_IMBALANCE = 0.5  # share of the busiest rail's bytes; less is a finding
_ENOUGH_BYTES = (
    1_000_000  # on the busiest rail; less is only store and handshake traffic, all on the first rail
)


def worker(
    spec: AgentSpec,
    table: PeerTable,
    rails: Sequence[Rail],
    traffic: TrafficTotals | None,
    codes: Mapping[str, int],
    flaps: Sequence[LinkFlap],
    rdma: Mapping[str, int],
    hcas: Collection[str] = (),
    bypass: Mapping[str, int | None] | None = None,
) -> dict[str, Any]:
    """Build one worker's receipt.

    Args:
        traffic: None if the processes never started.
        rdma: the bytes that each port moved.
        hcas: the devices on the rails; only they count as backend traffic.
        bypass: bytes by device off the rails that NCCL may have used; None for a device without counters.
    """
    backend = {rail.interface for rail in rails}
    traffic = traffic or TrafficTotals(complete=False)
    findings = _disagreements(spec, traffic, backend)
    on_rails = of_devices(rdma, hcas)
    stray = {port: count for port, count in rdma.items() if port not in on_rails}
    if hcas and sum(stray.values()) > sum(on_rails.values()) + SLACK_BYTES:
        findings.append(
            f"{spec.name}: RDMA ports that are not on a rail carried {sum(stray.values())} bytes ({', '.join(stray)}): "
            "traffic of other jobs, or NCCL_IB_HCA or UCX_NET_DEVICES was overridden"
        )
    # A counter that hardly moved shows that the device was not used.
    bypass = {device: n for device, n in (bypass or {}).items() if n is None or n > SLACK_BYTES}
    if bypass:
        seen = [f"{device} ({'no counters' if n is None else f'{n} bytes'})" for device, n in bypass.items()]
        findings.append(
            f"{spec.name}: NCCL may have used RDMA devices that cannot be matched to a rail: {', '.join(seen)}; "
            "NCCL_NET=Socket prevents it"
        )
    blind = None in bypass.values()
    payload = traffic.payload(backend)
    interfaces: dict[str, InterfaceBytes] = {
        name: {
            "role": "backend" if name in backend else "frontend" if name == "eth0" else "other",
            "sent_bytes": counter.sent_bytes,
            "received_bytes": counter.received_bytes,
        }
        for name, counter in sorted(traffic.counters.items())
        if name != "lo" or spec.loopback
    }
    peers: list[PeerBytes] = [
        {
            "node": table.rows[rank].name if rank < len(table.rows) else str(rank),
            "interface": interface,
            "sent_bytes": flow.sent_bytes,
            "received_bytes": flow.received_bytes,
        }
        for (rank, interface), flow in sorted(traffic.peers.items())
    ]
    receipt: WorkerReceipt = {
        "node": spec.name,
        "node_rank": spec.node_rank,
        "interfaces": interfaces,
        "peer_bytes": traffic.peer_bytes(),
        "other_bytes": sum(flow.total for flow in traffic.others.values()),
        "peers": peers,
        "unattributed": [
            {"interface": one.interface, "bytes": one.bytes, "reason": one.reason}
            for one in payload.unattributed
        ],
        "rdma_bytes": on_rails,
        "rdma_stray": {} if hcas and not bypass else stray,
        "proof": "unknown"
        if blind or not (traffic.complete or traffic.counters)
        else "measured"
        if traffic.complete
        else "inferred",
        "series": None,
        "codes": dict(codes),
        "payload": [
            payload.backend_low,
            payload.backend_high,
            payload.elsewhere_low,
            payload.elsewhere_high,
        ],
        "flaps": [vars(flap) for flap in flaps],
        "findings": findings,
    }
    return {**receipt}


def _disagreements(spec: AgentSpec, traffic: TrafficTotals, backend: set[str]) -> list[str]:
    if spec.loopback:
        return []
    found = []
    for name in sorted(backend | ({"eth0"} & traffic.counters.keys())):
        counter, flow = traffic.counters.get(name), traffic.on_interface(name)
        if counter is None:
            continue
        for verb, counted, by_socket, resent, segments in (
            ("sent", counter.sent_bytes, flow.sent_bytes, flow.resent_bytes, flow.segments_out),
            ("received", counter.received_bytes, flow.received_bytes, flow.repeated_bytes, flow.segments_in),
        ):
            lowest, highest = by_socket, by_socket + resent + segments * HEADER_BYTES
            if counted < lowest * (1 - _TOLERANCE) - SLACK_BYTES:
                found.append(
                    f"{spec.name}: connections on {name}'s address {verb} {by_socket} bytes, but the interface only "
                    f"{counted}: they used another interface"
                )
            elif counted > highest * (1 + _TOLERANCE) + SLACK_BYTES:
                found.append(
                    f"{spec.name}: {name} {verb} {counted} bytes, but its TCP connections only {by_socket}: the rest "
                    "is other traffic (UDP, or processes outside the job)"
                )
    return found


def job(
    *,
    spec: AgentSpec,
    receipts: Sequence[dict[str, Any]],
    attachments: Sequence[NetworkAttachment | None],
    failure: Failure | None,
    began: float,
    restarts: int,
    now: float | None = None,
) -> dict[str, Any]:
    """Build the job's receipt (torchnet.receipt/2) from the available worker receipts.

    Args:
        attachments: Rank 0's, by rail.
    """
    receipts = sorted(receipts, key=lambda receipt: int(receipt["node_rank"]))
    rails = _rails(receipts, {one.interface: one.path for one in attachments if one})
    share = _share(spec, receipts)
    findings = [text for receipt in receipts for text in receipt["findings"]]
    missing = spec.nnodes - len(receipts)
    if missing:
        findings.append(f"{missing} of {spec.nnodes} workers left no receipt")
    findings += _imbalance(rails)
    code, reason = (failure.code, failure.text.partition("\n")[0]) if failure else (0, "done")
    verdict = share.verdict(spec.min_share)
    if failure is None and verdict == "missed":
        code, reason = 5, f"the backend's share is below --min-share {spec.min_share:g}: {share.high:.4f}"
    elif failure is None and verdict == "not-proven":
        shown = share.reason if share.low is None else f"{share.low:.4f} to {share.high:.4f}: {share.reason}"
        code, reason = 5, f"--min-share {spec.min_share:g} is not proven: {shown}"
    return job_receipt(
        run_id=spec.run_id,
        runtime=spec.runtime,
        network=spec.network,
        nnodes=spec.nnodes,
        nproc_per_node=spec.nproc_per_node,
        code=code,
        reason=reason,
        failure=failure,
        began=began,
        ended=now if now is not None else time.time(),
        restarts=restarts,
        share=share,
        min_share=spec.min_share,
        ranks=[
            result
            for receipt in receipts
            for result in rank_results(
                receipt["node"], receipt["node_rank"], spec.nproc_per_node, receipt["codes"]
            )
        ],
        rails=rails,
        nodes=[
            cast(
                NodeReceipt, {key: value for key, value in receipt.items() if key not in ("codes", "payload")}
            )
            for receipt in receipts
        ],
        findings=findings,
    )


def _rails(receipts: Sequence[dict[str, Any]], attachments: Mapping[str, str]) -> list[RailBytes]:
    carried: dict[str, int] = {}
    for receipt in receipts:
        own = {name for name, one in receipt["interfaces"].items() if one["role"] == "backend"}
        for name in own:
            carried.setdefault(name, 0)
        for peer in receipt["peers"]:
            if peer["interface"] in own:
                carried[peer["interface"]] += peer["sent_bytes"] + peer["received_bytes"]
    total = sum(carried.values())
    return [
        {
            "interface": name,
            "attachment": attachments.get(name),
            "peer_bytes": count,
            "share": round(count / total, 6) if total else None,
        }
        for name, count in sorted(carried.items())
    ]


def _share(spec: AgentSpec, receipts: Sequence[dict[str, Any]]) -> Share:
    if spec.loopback:
        return _unknown("loopback: no network was used")
    if spec.nnodes == 1:
        return _unknown("single node: no network traffic")
    if not receipts:
        return _unknown("no worker left a receipt")
    stray = [
        f"{receipt['node']} {port}"
        for receipt in receipts
        if sum(receipt.get("rdma_stray", {}).values()) > SLACK_BYTES
        for port in receipt["rdma_stray"]
    ]
    if stray:
        shown = f"{', '.join(stray[:4])}{' and more' if len(stray) > 4 else ''}"
        return _unknown(f"RDMA traffic on ports that cannot be matched to a rail: {shown}")
    if any(receipt["proof"] == "unknown" and receipt["interfaces"] for receipt in receipts):
        return _unknown("RDMA devices without counters may have carried bytes (see the findings)")
    rdma = sum(count for receipt in receipts for count in receipt.get("rdma_bytes", {}).values())
    if sum(receipt["peer_bytes"] for receipt in receipts) + rdma == 0:
        return _unknown("the workers exchanged nothing")
    missing = spec.nnodes - len(receipts)
    if missing > 1:
        return _unknown(f"{missing} of {spec.nnodes} workers left no receipt")
    total = sum(
        (_payload(receipt, receipts if missing else ()) for receipt in receipts), _one_sided(receipts)
    )
    # Other jobs may use the ports, too, so their bytes are no lower bound.
    bounds = share_bounds.share(replace(total, backend_high=total.backend_high + rdma))
    if bounds is None:
        return _unknown("the workers exchanged nothing")
    low, high = bounds
    if rdma:
        return Share(low, high, "inferred", "RDMA is counted by port, not by peer")
    if missing:
        return Share(low, high, "inferred", "a worker left no receipt")
    if high - low > _EXACT:
        return Share(low, high, "inferred", _reason(receipts))
    if any(receipt["findings"] for receipt in receipts):
        return Share(low, high, "inferred", "the counts disagree (see the findings)")
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
    for peer in receipt["peers"]:
        if peer["node"] not in names:
            role = receipt["interfaces"].get(peer["interface"], {"role": UNKNOWN_INTERFACE})["role"]
            role = "other" if role == "frontend" else role
            sums[role] += peer["sent_bytes"] + peer["received_bytes"]
    unknown = sums[UNKNOWN_INTERFACE] + sum(one["bytes"] for one in receipt["unattributed"])
    return own + PeerPayload(
        sums["backend"], sums["backend"] + unknown, sums["other"], sums["other"] + unknown
    )


def _one_sided(receipts: Sequence[dict[str, Any]]) -> PeerPayload:
    """Return what a worker counted with a peer, but the peer not with it, and cannot have left unattributed.

    The peer knows the worker by another address then, such as that of a Kubernetes Service.
    """
    counted: dict[
        tuple[str, str, str, bool], int
    ] = {}  # by sender, receiver, and who counted it over the backend
    own: dict[str, list[int]] = {}
    for receipt in receipts:
        own[receipt["node"]] = [0, 0]
        for peer in receipt["peers"]:
            role = receipt["interfaces"].get(peer["interface"], {"role": UNKNOWN_INTERFACE})["role"]
            on_backend = role == "backend"
            own[receipt["node"]][on_backend] += peer["sent_bytes"] + peer["received_bytes"]
            for key, what in (("sent", "sent_bytes"), ("received", "received_bytes")):
                place = receipt["node"], peer["node"], key, on_backend
                counted[place] = counted.get(place, 0) + peer[what]
    lacking: dict[tuple[str, bool], int] = {}
    for (node, peer, what, on_backend), count in counted.items():
        if peer in own:
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


_REASONS: dict[share_bounds.Reason, str] = {
    "datagrams": "{} of UDP on {}",
    "sockets-lost": "{} on {}, where connections closed without their counts",
    "counters-lost": "{} on {}, and the protocols' counters cannot be read",
    "unplaced": "{} on {}, of connections with one end outside the backend",
    "moved": "{} on {}, of connections with addresses of another interface",
    "remainder": "{} on {} that are not TCP or UDP",
}


def _reason(receipts: Sequence[dict[str, Any]]) -> str:
    """Describe the largest part of the unattributed bytes, summed over the workers."""
    sums: dict[tuple[str, share_bounds.Reason], int] = {}
    for receipt in receipts:
        for one in receipt["unattributed"]:
            key = one["interface"], one["reason"]
            sums[key] = sums.get(key, 0) + one["bytes"]
    if not sums:
        return "two workers counted different bytes with each other"
    (interface, reason), count = max(sums.items(), key=lambda item: item[1])
    return _REASONS[reason].format(f"{count} bytes", interface)


def _imbalance(rails: Sequence[RailBytes]) -> list[str]:
    if len(rails) < 2:
        return []
    most = max(rails, key=lambda rail: int(rail["peer_bytes"]))
    if most["peer_bytes"] < _ENOUGH_BYTES:
        return []
    less = [
        f"{rail['interface']} carried {rail['peer_bytes']} bytes"
        for rail in rails
        if rail["peer_bytes"] < _IMBALANCE * most["peer_bytes"]
    ]
    return [f"rails are unequal: {', '.join(less)}, {most['interface']} {most['peer_bytes']}"] if less else []
