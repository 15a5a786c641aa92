"""Parse a container's termination message: up to 4096 bytes from its agent, which outlive the pod's log.

    {"torchnet": 1, "node": "RUN-3", "node_rank": 3, "phase": "prepare" | "work", "started": true, "code": 42,
     "failure": {"kind", "text", "code", "rank", "node", "at"} | null,
     "receipt": the worker's receipt, shortened | null,
     "job": {"exit_code", "reason", "backend_share", "backend_share_high", "proof", "min_share"} | null    # rank 0

Any process in the pod can write the message, so it is validated as untrusted input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, get_args

from torchnet.agent.events import Failure, Kind
from torchnet.text import loads

_LONGEST = 4096  # bytes; the kubelet truncates longer messages
_DEEPEST = 32  # levels of nesting; an agent's message has 5


@dataclass(frozen=True)
class TerminationMessage:
    """The termination message of one agent.

    Attributes:
        started: the script had started; None in messages of version 0.1.
        receipt: the worker's part of the receipt; its contents are not validated here.
        job: the result of the whole job, from rank 0 only.
    """

    code: int
    failure: Failure | None = None
    receipt: dict[str, Any] | None = None
    job: dict[str, Any] | None = None
    started: bool | None = None


def read(text: str | None) -> TerminationMessage | None:
    """Parse a termination message; None if the text is not a whole message of an agent."""
    if not text:
        return None
    try:
        data = loads(text, max_size=_LONGEST, max_depth=_DEEPEST)
    except ValueError:
        return None
    if not isinstance(data, dict) or data.get("torchnet") != 1:
        return None
    code, rank, receipt, job = (data.get(key) for key in ("code", "node_rank", "receipt", "job"))
    if not _is_natural(code) or not _is_natural(rank):
        return None
    return TerminationMessage(
        code=min(cast(int, code), 255),
        failure=_failure(data.get("failure")),
        receipt=receipt if isinstance(receipt, dict) else None,
        job=job if isinstance(job, dict) and _is_natural(job.get("exit_code")) else None,
        started=data["started"] if isinstance(data.get("started"), bool) else None,
    )


def _failure(data: object) -> Failure | None:
    if (
        not isinstance(data, dict)
        or data.get("kind") not in get_args(Kind)
        or not _is_natural(data.get("code"))
    ):
        return None
    if not data["code"]:
        return None  # exit code 0 is not a failure
    rank, node, at = data.get("rank"), data.get("node"), data.get("at")
    return Failure(
        kind=data["kind"],
        text=str(data.get("text") or ""),
        code=min(data["code"], 255),
        rank=rank if _is_natural(rank) else None,
        node=node if isinstance(node, str) else None,
        at=float(at) if isinstance(at, (int, float)) else 0.0,
    )


def _is_natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
