"""Phase 6: the receipt. Each worker builds its own; rank 0 or the launcher combines them into the job's.

`torchnet.agent.receipt_shape` has the shape of both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torchnet.agent import share_bounds
from torchnet.agent.accounting import TrafficTotals
from torchnet.agent.events import Failure
from torchnet.agent.job_share import EXACT, doubt, share_of
from torchnet.agent.link_monitor import LinkFlap
from torchnet.agent.receipt_shape import (
    InterfaceBytes,
    NodeReceipt,
    PeerBytes,
    RailBytes,
    WorkerReceipt,
    job_receipt,
    rank_results,
)
from torchnet.agent.share_bounds import SLACK_BYTES, PeerPayload, Reason
from torchnet.agent.spec import AgentSpec
from torchnet.agent.transports import NO_TRANSPORTS, Transports
from torchnet.linux import rtnetlink
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerTable
from torchnet.units import size

# Up to this many workers, the receipt has a row for each rank and each pair of workers.
ALL_ROWS_WORKERS = 64
_ROWS, _FULL_ROWS = 4096, 50_000  # of pairs in a larger job, by default and with --full-receipt: 0.4 and 5 MB
_FINDINGS = 100  # in the job's list
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
    transports: Transports = NO_TRANSPORTS,
) -> dict[str, Any]:
    """Build one worker's receipt.

    Args:
        traffic: None if the processes never started.
    """
    traffic = traffic or TrafficTotals(complete=False)
    backend = rtnetlink.above(traffic.counters, [rail.interface for rail in rails])
    peer_bytes = traffic.peer_bytes()
    payload = traffic.payload(backend) + transports.payload
    doubts = transports.doubts(peer_bytes)
    if not spec.loopback and not _exact(payload):
        doubts += _unattributed(payload, peer_bytes)
    # What is unused concerns the speed, not the counts.
    findings = [f"{spec.name}: {text}" for text in (*doubts, *transports.unused(peer_bytes))]
    blind = bool(transports.unreadable) or transports.hidden(peer_bytes) or bool(traffic.vanished)
    findings += [f"{spec.name}: {name} has left the network namespace" for name in traffic.vanished]
    interfaces: dict[str, InterfaceBytes] = {
        name: {
            "role": "backend" if name in backend else "frontend" if name == "eth0" else "other",
            "sent_bytes": counter.sent_bytes,
            "received_bytes": counter.received_bytes,
            "peer_bytes": sum(flow.total for (_, on), flow in traffic.peers.items() if on == name),
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
        "peer_bytes": peer_bytes,
        "other_bytes": sum(flow.total for flow in traffic.others.values()),
        "peers": peers,
        "peers_omitted": 0,
        "unattributed": [
            {"interface": one.interface, "bytes": one.bytes, "reason": one.reason}
            for one in payload.unattributed
        ],
        "rdma_bytes": transports.own,
        "rdma_stray": transports.stray,
        "proof": "unknown"
        if blind or not (traffic.complete or traffic.counters)
        else "measured"
        if traffic.complete and not doubts
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


def _exact(payload: PeerPayload) -> bool:
    """Return whether the bytes that cannot be attributed do not matter."""
    bounds = share_bounds.share(payload)
    return bounds is not None and bounds[1] - bounds[0] <= EXACT


def _unattributed(payload: PeerPayload, peer_bytes: int) -> list[str]:
    """Describe the bytes that may have been exchanged with peers, if they are enough to matter."""
    sums: dict[tuple[str, Reason], int] = {}
    for one in payload.unattributed:
        sums[one.interface, one.reason] = sums.get((one.interface, one.reason), 0) + one.bytes
    least = max(SLACK_BYTES, EXACT * peer_bytes)
    return [
        f"{doubt(*key, count)}: with other workers, or with anyone else"
        for key, count in sums.items()
        if count > least and not key[1].startswith("rdma")
    ]


def summary(spec: AgentSpec, receipt: dict[str, Any]) -> dict[str, Any]:
    """Return what rank 0 gets of a worker's receipt: in large jobs only the peers with the most bytes.

    All pairs of 1,000 workers would take 100 MB, in one line of rank 0's log. Bytes off the rails come first.
    """
    rows = receipt["peers"]
    limit = max(1, (_FULL_ROWS if spec.full_receipt else _ROWS) // spec.nnodes)
    if spec.nnodes <= ALL_ROWS_WORKERS or len(rows) <= limit:
        return receipt
    backend = {name for name, one in receipt["interfaces"].items() if one["role"] == "backend"}
    kept = sorted(
        rows, key=lambda row: (row["interface"] in backend, -row["sent_bytes"] - row["received_bytes"])
    )[:limit]
    return {**receipt, "peers": kept, "peers_omitted": len(rows) - limit}


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
    share = share_of(spec, receipts)
    findings = [text for receipt in receipts for text in receipt["findings"]]
    missing = spec.nnodes - len(receipts)
    if missing:
        findings.append(f"{missing} of {spec.nnodes} workers left no receipt")
    findings += _imbalance(rails)
    if len(findings) > _FINDINGS:
        findings[_FINDINGS:] = [f"and {len(findings) - _FINDINGS} more (see the nodes)"]
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
            if spec.nnodes <= ALL_ROWS_WORKERS or spec.full_receipt or result["exit_code"] != 0
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
        for name, interface in receipt["interfaces"].items():
            if interface["role"] == "backend":
                carried[name] = carried.get(name, 0) + int(interface["peer_bytes"])
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


def _imbalance(rails: Sequence[RailBytes]) -> list[str]:
    if len(rails) < 2:
        return []
    most = max(rails, key=lambda rail: int(rail["peer_bytes"]))
    if most["peer_bytes"] < _ENOUGH_BYTES:
        return []
    less = [
        f"{rail['interface']} carried {size(rail['peer_bytes'])}"
        for rail in rails
        if rail["peer_bytes"] < _IMBALANCE * most["peer_bytes"]
    ]
    return (
        [f"rails are unequal: {', '.join(less)}, {most['interface']} {size(most['peer_bytes'])}"]
        if less
        else []
    )
