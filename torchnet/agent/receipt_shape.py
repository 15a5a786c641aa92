"""The shape of a receipt (torchnet.receipt/2), for everything that writes one.

mypy checks each writer against these types, and a test compares them with the launcher's model
(`torchnet.receipt.receipt_model`), which describes the fields and is the source of ``receipt.schema.json``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from torchnet import constants
from torchnet.agent.events import Failure
from torchnet.agent.share_bounds import Reason
from torchnet.agent.spec import Runtime
from torchnet.network.address_sources import NetworkKind

Proof = Literal["measured", "inferred", "unknown"]
Verdict = Literal["reached", "missed", "not-proven"]


@dataclass(frozen=True)
class Share:
    """The backend's share: its bounds, None if unknown, and how they are known."""

    low: float | None
    high: float | None
    proof: Proof
    reason: str

    def verdict(self, least: float | None) -> Verdict | None:
        """Return whether the share reaches ``least``, if any is required."""
        if least is None:
            return None
        if self.low is not None and self.low >= least:
            return "reached"
        return "missed" if self.high is not None and self.high < least else "not-proven"


class RankResult(TypedDict):
    rank: int
    local_rank: int
    node: str
    exit_code: int | None


class RailBytes(TypedDict):
    interface: str
    attachment: str | None
    peer_bytes: int
    share: float | None


class InterfaceBytes(TypedDict):
    role: Literal["backend", "frontend", "other"]
    sent_bytes: int
    received_bytes: int
    peer_bytes: int | None  # null only in receipts of earlier versions


class PeerBytes(TypedDict):
    node: str
    interface: str
    sent_bytes: int
    received_bytes: int


class UnattributedBytes(TypedDict):
    interface: str
    bytes: int
    reason: Reason


class Series(TypedDict):
    sample_s: float
    unit_bytes: int
    block_samples: int
    blocks: dict[str, str]


class NodeReceipt(TypedDict):
    node: str
    node_rank: int
    interfaces: dict[str, InterfaceBytes]
    peer_bytes: int
    other_bytes: int
    peers: list[PeerBytes]
    unattributed: list[UnattributedBytes]
    peers_omitted: int
    rdma_bytes: dict[str, int]
    rdma_stray: dict[str, int]
    proof: Proof
    flaps: list[dict[str, Any]]  # the fields of LinkFlap
    findings: list[str]
    findings_omitted: int
    series: Series | None


class WorkerReceipt(NodeReceipt):
    """What a worker sends to rank 0.

    ``codes`` has the exit codes by rank; ``payload`` the limits of the bytes with peers, as
    `torchnet.agent.share_bounds.PeerPayload` has them.
    """

    codes: dict[str, int]
    payload: list[int]


class JobReceipt(TypedDict):
    schema: Literal["torchnet.receipt/2"]
    run_id: str
    runtime: Runtime
    network: NetworkKind
    exit_code: int
    reason: str
    failure: dict[str, Any] | None  # the fields of Failure
    started: str
    duration_s: float
    nnodes: int
    nproc_per_node: int
    world_size: int
    restarts: int
    backend_share: float | None
    backend_share_high: float | None
    unattributed_bytes: int
    proof: Proof
    proof_reason: str
    min_share: float | None
    min_share_verdict: Verdict | None
    measured: None  # the launcher computes it from the nodes' series
    ranks: list[RankResult]
    ranks_omitted: dict[str, int]
    rails: list[RailBytes]
    nodes: list[NodeReceipt]
    findings: list[str]


def job_receipt(
    *,
    run_id: str,
    runtime: Runtime,
    network: NetworkKind,
    nnodes: int,
    nproc_per_node: int,
    code: int,
    reason: str,
    failure: Failure | None,
    began: float,
    ended: float,
    restarts: int,
    share: Share,
    min_share: float | None,
    ranks: list[RankResult],
    rails: list[RailBytes],
    nodes: list[NodeReceipt],
    findings: list[str],
    ranks_omitted: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return a job's receipt; ``began`` and ``ended`` are Unix times."""
    made: JobReceipt = {
        "schema": constants.RECEIPT_SCHEMA,
        "run_id": run_id,
        "runtime": runtime,
        "network": network,
        "exit_code": code,
        "reason": reason,
        "failure": {**vars(failure)} if failure else None,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "duration_s": round(max(0.0, ended - began), 3),
        "nnodes": nnodes,
        "nproc_per_node": nproc_per_node,
        "world_size": nnodes * nproc_per_node,
        "restarts": restarts,
        "backend_share": share.low,
        "backend_share_high": share.high,
        "unattributed_bytes": sum(one["bytes"] for node in nodes for one in node.get("unattributed", ())),
        "proof": share.proof,
        "proof_reason": share.reason,
        "min_share": min_share,
        "min_share_verdict": share.verdict(min_share),
        "measured": None,
        "ranks": ranks,
        "ranks_omitted": dict(ranks_omitted or {}),
        "rails": rails,
        "nodes": nodes,
        "findings": findings,
    }
    return {**made}


def rank_results(
    node: str, node_rank: int, nproc_per_node: int, codes: Mapping[str, Any]
) -> list[RankResult]:
    """Return how a node's processes ended; ``codes`` has exit codes by rank, as text."""
    return [
        {
            "rank": rank,
            "local_rank": rank % nproc_per_node,
            "node": node,
            "exit_code": code if isinstance(code := codes.get(str(rank)), int) else None,
        }
        for rank in range(node_rank * nproc_per_node, (node_rank + 1) * nproc_per_node)
    ]
