"""A container's termination message: the agent's last words, at most 4096 bytes, which outlive the pod's log.

    {"torchnet": 1, "node": "RUN-3", "node_rank": 3, "phase": "prepare" | "work", "code": 42,
     "failure": {"kind", "text", "code", "rank", "node", "at"} | null,
     "receipt": the worker's receipt, shortened | null,
     "job": {"exit_code", "reason", "backend_share", "proof"} | null    # rank 0's alone

It comes from the pods' status, which whoever runs in the pod may write: it is data, and checked as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, get_args

from torchnet.agent.events import Failure, Kind
from torchnet.text import loads

_LONGEST = 4096  # the kubelet cuts them there
_DEEPEST = 32  # an agent's have 5 levels


@dataclass(frozen=True)
class TerminationMessage:
    """``receipt`` is the worker's, as it is; ``job`` is rank 0's word on the whole job."""

    code: int
    failure: Failure | None = None
    receipt: dict[str, Any] | None = None
    job: dict[str, Any] | None = None


def read(text: str | None) -> TerminationMessage | None:
    """The message, or None if an agent did not write this text, or not all of it."""
    if not text:
        return None
    try:
        data = loads(text, max_size=_LONGEST, max_depth=_DEEPEST)
    except ValueError:
        return None
    if not isinstance(data, dict) or data.get("torchnet") != 1:
        return None
    code, rank, receipt, job = (data.get(key) for key in ("code", "node_rank", "receipt", "job"))
    if not _whole(code) or not _whole(rank):
        return None
    return TerminationMessage(
        code=min(cast(int, code), 255),
        failure=_failure(data.get("failure")),
        receipt=receipt if isinstance(receipt, dict) else None,
        job=job if isinstance(job, dict) and _whole(job.get("exit_code")) else None,
    )


def _failure(data: object) -> Failure | None:
    if not isinstance(data, dict) or data.get("kind") not in get_args(Kind) or not _whole(data.get("code")):
        return None
    if not data["code"]:
        return None  # success is no failure
    rank, node, at = data.get("rank"), data.get("node"), data.get("at")
    return Failure(
        kind=data["kind"],
        text=str(data.get("text") or ""),
        code=min(data["code"], 255),
        rank=rank if _whole(rank) else None,
        node=node if isinstance(node, str) else None,
        at=float(at) if isinstance(at, (int, float)) else 0.0,
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
