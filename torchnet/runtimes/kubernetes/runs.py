"""The runs of a namespace, summed up for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torchnet.errors import UsageError
from torchnet.names import RUN_LABEL
from torchnet.network.text import printable
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.end import first_failure
from torchnet.runtimes.kubernetes.facts import Facts, facts
from torchnet.runtimes.kubernetes.gang import Gang
from torchnet.runtimes.kubernetes.pods import Worker, seconds
from torchnet.runtimes.kubernetes.resources import JOBSET, POD, selector
from torchnet.runtimes.kubernetes.survey import survey
from torchnet.runtimes.kubernetes.suspension import evicted, suspension, terminal

Object = dict[str, Any]
_REASON = 200  # characters of what the cluster says of a run or a worker


@dataclass(frozen=True)
class Row:
    """One run as ``torchnet status`` shows it. ``exit_code`` is None while it runs."""

    run: str
    namespace: str
    workload: str
    ready: int
    total: int
    state: str
    reason: str
    age_s: float
    exit_code: int | None
    workers: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Table:
    """``remark``: what may be missing among the rows, and why."""

    rows: list[Row]
    remark: str = ""


def table(door: Door, namespace: str, run: str | None = None) -> Table:
    """All runs of the namespace, or this one, the newest first.

    Raises:
        UsageError: there is no such run.
        ClusterError: jobs or pods may not be listed, or the server cannot be reached.
    """
    there = survey(door, namespace, run)
    if run is not None and run not in there.names:
        raise there.missing(run)
    query = {"labelSelector": selector(run) if run else RUN_LABEL}
    answer = door.call("GET", POD.path(namespace), POD.call("list", namespace), query=query)
    pods: dict[str, list[Object]] = {name: [] for name in there.names}
    for pod in answer.get("items") or ():
        pods.setdefault(str((pod["metadata"].get("labels") or {}).get(RUN_LABEL)), []).append(pod)
    found = [_row(body, pods[name], detailed=run is not None) for name, body in there.found.items()]
    found += [
        _unknown(body, pods[name], JOBSET.name, "its JobSet could not be looked at")
        for name, body in there.hidden.items()
    ]
    return Table(sorted(found, key=lambda row: row.age_s), there.remark)


def _unknown(body: Object, pods: Sequence[Object], workload: str, why: str) -> Row:
    meta = body["metadata"]
    age = round(max(0.0, time.time() - seconds(meta.get("creationTimestamp"))), 0)
    name = str((meta.get("labels") or {}).get(RUN_LABEL))
    return Row(name, meta["namespace"], workload, 0, len(pods), "unknown", printable(why, _REASON), age, None)


def _row(workload: Object, pods: Sequence[Object], *, detailed: bool) -> Row:
    try:
        known = facts(workload)
    except UsageError as error:
        # One damaged run (or what a verification left) must not hide the others.
        return _unknown(workload, pods, workload["kind"], error.text)
    gang = Gang(known.nnodes, restarts=known.restarts, replaces=known.kind is not POD)
    gang.listed(pods)
    found = suspension(workload)
    gang.forget(pod["metadata"]["uid"] for pod in pods if found.ended(pod, gone=False))
    workers = gang.workers()
    state, reason, code = _state(known, workload, workers, pods)
    details = tuple(
        {
            "worker": known.node(rank),
            "pod": one.pod,
            "node": one.node,
            "state": one.stage,
            "reason": printable(one.why or (one.ended.why if one.ended else ""), _REASON),
            "exit_code": one.ended.code if one.ended else None,
        }
        for rank, one in workers.items()
    )
    return Row(
        run=known.run,
        namespace=known.namespace,
        workload=known.kind.name,
        ready=sum(one.started and one.ended is None for one in workers.values()),
        total=known.nnodes,
        state=state,
        reason=printable(reason, _REASON),
        age_s=round(max(0.0, time.time() - known.made), 0),
        exit_code=code,
        workers=details if detailed else (),
    )


def _state(
    known: Facts, workload: Object, workers: dict[int, Worker], pods: Sequence[Object]
) -> tuple[str, str, int | None]:
    found = suspension(workload)
    if found.active and not workload["metadata"].get("deletionTimestamp"):
        return found.state, found.reason(known.kind.name), None
    if known.kind is POD and (why := evicted((pod, False) for pod in pods)):
        return "evicted", why, None
    failure = first_failure(known, workers)
    ended = [one for one in workers.values() if one.ended is not None]
    if len(ended) == known.nnodes and not (known.restarts and not terminal(workload)):
        if failure is None:
            job = ended[0].ended.message.job if ended[0].ended and ended[0].ended.message else None
            code = min(255, int(job["exit_code"])) if job else 0
            return ("done", "", 0) if code == 0 else ("failed", str((job or {}).get("reason") or ""), code)
        return "failed", failure.text.partition("\n")[0], failure.code
    if workload["metadata"].get("deletionTimestamp"):
        return "stopping", "", None
    if failure is not None and not known.restarts:
        return "failing", failure.text.partition("\n")[0], None
    started = [one for one in workers.values() if one.started]
    if len(started) == known.nnodes:
        return "running", "", None
    if not workers and terminal(workload):
        return "ended", "its pods are gone", None
    why = next((one.why for one in workers.values() if one.failing), "")
    return "starting", why or next((one.why for one in workers.values() if one.why), "no pod yet"), None


def as_json(row: Row) -> dict[str, Any]:
    """For ``-o json``."""
    return asdict(row) | {"workers": list(row.workers)}
