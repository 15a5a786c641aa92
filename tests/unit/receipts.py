"""A receipt to try things on."""

from __future__ import annotations

from typing import Any


def receipt(**fields: Any) -> dict[str, Any]:
    """The receipt of a job on two nodes, with fields replaced."""
    nodes = [
        {
            "node": f"node-{i}",
            "node_rank": i,
            "interfaces": {
                "lo": {"role": "other", "sent_bytes": 0, "received_bytes": 0, "peer_bytes": 0},
                "eth0": {"role": "frontend", "sent_bytes": 1200, "received_bytes": 3400, "peer_bytes": 0},
                "net1": {
                    "role": "backend",
                    "sent_bytes": 203_000_000,
                    "received_bytes": 203_000_000,
                    "peer_bytes": 405_300_000,
                },
            },
            "peer_bytes": 405_300_000,
            "other_bytes": 12_000,
            "peers": [
                {
                    "node": f"node-{1 - i}",
                    "interface": "net1",
                    "sent_bytes": 202_650_000,
                    "received_bytes": 202_650_000,
                }
            ],
            "unattributed": [],
            "peers_omitted": 0,
            "rdma_bytes": {},
            "rdma_stray": {},
            "proof": "measured",
            "flaps": [],
            "findings": [],
            "findings_omitted": 0,
            "series": None,
        }
        for i in range(2)
    ]
    whole: dict[str, Any] = {
        "schema": "torchnet.receipt/2",
        "run_id": "train-7f3a",
        "runtime": "local",
        "network": "namespaces",
        "exit_code": 0,
        "reason": "done",
        "failure": None,
        "started": "2026-01-02T03:04:05Z",
        "duration_s": 12.34,
        "nnodes": 2,
        "nproc_per_node": 1,
        "world_size": 2,
        "restarts": 0,
        "backend_share": 0.99973,
        "backend_share_high": 0.99974,
        "unattributed_bytes": 0,
        "proof": "measured",
        "proof_reason": "",
        "min_share": None,
        "min_share_verdict": None,
        "measured": None,
        "ranks": [{"rank": i, "local_rank": 0, "node": f"node-{i}", "exit_code": 0} for i in range(2)],
        "ranks_omitted": {},
        "rails": [
            {
                "interface": "net1",
                "attachment": "default/backend-network",
                "peer_bytes": 810_600_000,
                "share": 1.0,
            }
        ],
        "nodes": nodes,
        "findings": [],
    }
    return {**whole, **fields}
