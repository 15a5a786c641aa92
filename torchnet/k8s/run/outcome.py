"""The outcome of a run (pure): exit code and receipt, from rank 0's log or the termination messages.

Rank 0's log holds the whole receipt. If the log is lost, the termination messages contain the agents' common result
and each worker's totals. The exit code is the same either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

from torchnet import constants
from torchnet.agent import receipt_shape
from torchnet.agent.events import Failure
from torchnet.agent.receipt_shape import Proof, Share, job_receipt, rank_results
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.termination_message import TerminationMessage
from torchnet.k8s.run.worker_set import WorkerStatus
from torchnet.receipt.receipt_model import NodeReceipt, Receipt

_REBUILT = "rank 0's receipt is missing from its log; rebuilt from the pods' termination messages"
_OURS = ("interrupted", "timeout")  # the launcher's reason takes precedence: the agents saw only a SIGTERM
_CAUSES = ("script", "network", "usage")  # kinds of failure that a stop does not cause


def settle(
    facts: RunInfo,
    workers: Mapping[int, WorkerStatus],
    logged: object = None,
    failure: Failure | None = None,
    *,
    restarts: int = 0,
    now: float = 0.0,
) -> dict[str, Any]:
    """Build the job's receipt (schema torchnet.receipt/2).

    Args:
        logged: the receipt in rank 0's log, if it was read.
        failure: the failure that the launcher detected: an interruption, a timeout, or a lost pod.
        restarts: how often the cluster has restarted the workers.
        now: unix time, used if the cluster does not report when the last worker ended.
    """
    messages = {rank: one.ended.message for rank, one in workers.items() if one.ended and one.ended.message}
    receipt = _valid(logged, facts) or _rebuild(facts, workers, messages, now)
    receipt["restarts"] += restarts  # agents count their own restarts, and do not know of the JobSet's
    _complete(receipt, facts, messages)
    first = first_failure(facts, workers)
    if first is not None and receipt["failure"] is not None:
        stopped = receipt["failure"]["kind"] == "interrupted" and first.kind == "lost"
        if stopped or _timed_out_waiting(workers, messages, first):
            _set_failure(receipt, first)
    if failure is not None and not _was_first(receipt["failure"], failure):
        _set_failure(receipt, failure)
    return receipt


def _was_first(reported: Mapping[str, Any] | None, own: Failure) -> bool:
    """Return whether the agents' failure takes precedence over the launcher's, which may have been detected later.

    After an interruption or a timeout, later failures of the agents are effects of the stop. So is a lost worker at any
    time: its time comes from the cluster's clock, which differs from this one and has a resolution of one second.
    """
    if reported is None or (own.kind == reported["kind"] == "lost" and not reported["at"]):
        return False  # pods that the launcher has deleted since leave no message either
    if own.kind == "lost" and reported["kind"] == "interrupted":
        return False  # the launcher stopped the others because of the lost worker
    if own.kind not in _OURS:
        return True
    return reported["kind"] in _CAUSES and 0 < reported["at"] < own.at


def _timed_out_waiting(
    workers: Mapping[int, WorkerStatus], messages: Mapping[int, TerminationMessage], first: Failure
) -> bool:
    """Return whether rank 0 timed out waiting for a worker that had failed before it could join."""
    reported = messages[0].failure if 0 in messages else None
    waited = reported is not None and reported.kind == "timeout" and 0 < first.at < reported.at
    return waited and first.kind not in _OURS and not any(one.started for one in workers.values())


def _set_failure(receipt: dict[str, Any], failure: Failure) -> None:
    """Set the receipt's failure, exit code and reason."""
    receipt["failure"] = asdict(failure)
    receipt["exit_code"], receipt["reason"] = failure.code, failure.text.partition("\n")[0]


def first_failure(facts: RunInfo, workers: Mapping[int, WorkerStatus]) -> Failure | None:
    """Return the failure according to the ends of the workers: the one that the agents report, else a lost worker.

    An agent that received SIGTERM reports that as its failure, so any other reported failure came first. If there is no
    other and only some of the pods were deleted, those are lost workers. If all were deleted, the job was stopped.
    """
    reported: list[Failure] = []
    lost: list[Failure] = []
    for rank, one in workers.items():
        if one.ended is None:
            continue
        message = one.ended.message
        if message is None:
            if one.ended.code in (constants.STOPPED_CODE, constants.REPLACE_CODE) and not one.started:
                text = f"{facts.node(rank)} was stopped before it started"
                reported.append(
                    Failure(
                        "interrupted", text, constants.STOPPED_CODE, node=facts.node(rank), at=one.ended.at
                    )
                )
            elif one.ended.code:
                lost.append(_lost(facts, rank, one))
        elif message.failure is not None:
            reported.append(message.failure)
        elif code := message.code or one.ended.code:  # possibly killed after it reported 0
            text = f"{facts.node(rank)} exited with code {code}"
            reported.append(Failure("internal", text, code, node=facts.node(rank), at=one.ended.at))
    causes = (
        [one for one in reported if one.kind not in _OURS]
        or lost
        or _deleted_pods(facts, workers, reported)
        or reported
    )
    return min(causes, key=lambda one: (one.at or float("inf"), one.rank is None), default=None)


def _deleted_pods(
    facts: RunInfo, workers: Mapping[int, WorkerStatus], reported: Sequence[Failure]
) -> list[Failure]:
    """If agents received SIGTERM, return a failure for each pod that was deleted while other pods stayed.

    If all were deleted, those are meant that the cluster took away: the Job then deletes the others.
    """
    stopped = [one for one in reported if one.kind == "interrupted"]
    everybody = all(one.leaving for one in workers.values())
    disrupted = {rank for rank, one in workers.items() if one.disrupted}
    if not stopped or (everybody and not 0 < len(disrupted) < len(workers)):
        return []
    found = []
    for rank in range(facts.nnodes):
        one = workers.get(rank)
        why = "its pod was deleted" if one is None else one.leaving
        if why and (not everybody or rank in disrupted):
            where = f" on {one.node}" if one is not None and one.node else ""
            text = f"lost {facts.node(rank)} (node rank {rank}{where}): {why}"
            found.append(Failure("lost", text, 70, node=facts.node(rank), at=min(one.at for one in stopped)))
    return found


def _lost(facts: RunInfo, rank: int, one: WorkerStatus) -> Failure:
    assert one.ended is not None
    name = facts.node(rank)
    where = f" on {one.node}" if one.node else ""
    text = (
        f"lost {name} (node rank {rank}{where}): {one.ended.why or 'its agent exited without reporting why'}"
    )
    return Failure("lost", text, 70, node=name, at=one.ended.at)


def _valid(logged: object, facts: RunInfo) -> dict[str, Any] | None:
    try:
        body: dict[str, Any] = Receipt.model_validate(logged).model_dump(mode="json", by_alias=True)
    except (ValueError, RecursionError):  # pydantic's ValidationError, and too deep nesting
        return None
    return body if body["run_id"] == facts.run else None


def _complete(receipt: dict[str, Any], facts: RunInfo, messages: Mapping[int, TerminationMessage]) -> None:
    """Add the workers that rank 0's receipt lacks but whose termination messages hold a receipt."""
    present = {node["node_rank"] for node in receipt["nodes"]}
    for rank, message in sorted(messages.items()):
        if rank in present or message.receipt is None:
            continue
        node = _node(facts, rank, message.receipt)
        if node is not None:
            receipt["nodes"].append(node)
    receipt["nodes"].sort(key=lambda node: node["node_rank"])


def _rebuild(
    facts: RunInfo,
    workers: Mapping[int, WorkerStatus],
    messages: Mapping[int, TerminationMessage],
    now: float,
) -> dict[str, Any]:
    job = messages[0].job if 0 in messages and messages[0].job is not None else {}
    failure = first_failure(facts, workers)
    code, reason = (failure.code, failure.text.partition("\n")[0]) if failure else (0, "done")
    if job and not (failure and failure.kind == "lost"):
        code = min(255, int(job["exit_code"]))
        reason = str(job.get("reason") or reason)
    elif failure is None and len([one for one in workers.values() if one.ended]) < facts.nnodes:
        gone = facts.nnodes - len([one for one in workers.values() if one.ended])
        failure = Failure(
            "internal", f"{gone} of {facts.nnodes} workers exited without reporting a status", 70, at=now
        )
        code, reason = 70, failure.text
    ran = any(one.started for one in workers.values())
    began = min((one.began for one in workers.values() if one.began), default=0.0) or facts.created or now
    ended = max((one.ended.at for one in workers.values() if one.ended), default=0.0) or now
    return job_receipt(
        run_id=facts.run,
        runtime="kubernetes",
        network=facts.network,
        nnodes=facts.nnodes,
        nproc_per_node=facts.nproc_per_node,
        code=code,
        reason=reason,
        failure=replace(failure, code=code) if failure and code else None,
        began=began,
        ended=ended,
        restarts=0,
        share=_share(job),
        min_share=_number(job.get("min_share")),
        ranks=[
            result
            for rank, message in sorted(messages.items())
            for result in rank_results(facts.node(rank), rank, facts.nproc_per_node, _codes(message))
        ],
        rails=[],
        nodes=[] if ran else [node for rank in range(facts.nnodes) if (node := _node(facts, rank, {}))],
        findings=[_REBUILT] if ran else [],
    )


def _share(job: Mapping[str, Any]) -> Share:
    low, high, proof = (
        _number(job.get("backend_share")),
        _number(job.get("backend_share_high")),
        job.get("proof"),
    )
    if low is not None and (high is None or low <= high) and proof in ("measured", "inferred"):
        return Share(low, high, cast(Proof, proof), "as reported in rank 0's termination message")
    return Share(None, None, "unknown", "rank 0 reported no result of the job")


def _number(value: object) -> float | None:
    """Return a share, 0 to 1; None for anything else."""
    valid = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    return float(cast(float, value)) if valid else None


def _node(facts: RunInfo, rank: int, receipt: Mapping[str, Any]) -> receipt_shape.NodeReceipt | None:
    """Return a worker's part of the receipt; None if its message contains no valid one."""
    filled = {
        "interfaces": {},
        "peer_bytes": 0,
        "other_bytes": 0,
        **{key: value for key, value in receipt.items() if key != "codes"},
        "node": facts.node(rank),
        "node_rank": rank,
    }
    try:
        body = cast(receipt_shape.NodeReceipt, NodeReceipt.model_validate(filled).model_dump(mode="json"))
    except (ValueError, RecursionError):  # pydantic's ValidationError, and too deep nesting
        return None
    return body


def _codes(message: TerminationMessage) -> dict[str, Any]:
    codes = (message.receipt or {}).get("codes")
    return codes if isinstance(codes, dict) else {}
