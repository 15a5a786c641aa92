"""The runs of a namespace: found by their label, summed up for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torchnet.errors import UsageError
from torchnet.network.text import listed, printable
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.end import first_failure
from torchnet.runtimes.kubernetes.facts import Facts, facts
from torchnet.runtimes.kubernetes.gang import Gang
from torchnet.runtimes.kubernetes.pods import Worker, seconds
from torchnet.runtimes.kubernetes.refused import Refused
from torchnet.runtimes.kubernetes.resources import JOB, JOBSET, POD, RUN, WORKLOADS, Kind, selector

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


def workloads(door: Door, namespace: str, run: str | None = None) -> dict[str, Object]:
    """The object that each run is known by: its JobSet, its Job, or its first pod.

    Raises:
        ClusterError: neither jobs nor pods may be listed, or the server cannot be reached.
    """
    query = {"labelSelector": selector(run) if run else RUN}
    found: dict[str, Object] = {}
    for kind in (JOBSET, JOB, POD):
        for item in _items(door, kind, namespace, query):
            item |= {"apiVersion": kind.api, "kind": kind.name}
            labels = item["metadata"].get("labels") or {}
            if _made_by_another(item):
                continue
            found.setdefault(str(labels.get(RUN)), item)
    return found


def find(door: Door, namespace: str, run: str | None) -> Facts:
    """The run of this name; without one, the only run that there is.

    Raises:
        UsageError: there is none, or there are several.
    """
    there = workloads(door, namespace, run)
    if run is not None:
        if run not in there:
            raise UsageError(
                f"there is no run {printable(run, 80)} in namespace {namespace}",
                fix=f"torchnet status -n {namespace}",
            )
        return facts(there[run])
    return facts(there[only(list(there), namespace)])


def only(there: Sequence[str], namespace: str) -> str:
    """The one name of ``there``."""
    if not there:
        raise UsageError(f"there is no run in namespace {namespace}", fix="-n ANOTHER, or torchnet launch …")
    if len(there) > 1:
        raise UsageError(
            f"there are {len(there)} runs in namespace {namespace}: {listed(sorted(there), limit=20)}",
            fix="name one of them",
        )
    return there[0]


def rows(door: Door, namespace: str, run: str | None = None) -> list[Row]:
    """All runs of the namespace, or this one, the newest first."""
    there = workloads(door, namespace, run)
    if run is not None and run not in there:
        raise UsageError(
            f"there is no run {printable(run, 80)} in namespace {namespace}",
            fix=f"torchnet status -n {namespace}",
        )
    pods: dict[str, list[Object]] = {name: [] for name in there}
    for pod in _items(door, POD, namespace, {"labelSelector": selector(run) if run else RUN}):
        pods.setdefault(str((pod["metadata"].get("labels") or {}).get(RUN)), []).append(pod)
    found = [_row(body, pods[name], detailed=run is not None) for name, body in there.items()]
    return sorted(found, key=lambda row: row.age_s)


def _row(workload: Object, pods: Sequence[Object], *, detailed: bool) -> Row:
    try:
        known = facts(workload)
    except UsageError as error:
        # One damaged run (or what a verification left) must not hide the others.
        meta = workload["metadata"]
        age = round(max(0.0, time.time() - seconds(meta.get("creationTimestamp"))), 0)
        name = str((meta.get("labels") or {}).get(RUN))
        why = printable(error.text, _REASON)
        return Row(name, meta["namespace"], workload["kind"], 0, len(pods), "unknown", why, age, None)
    gang = Gang(known.nnodes, restarts=known.restarts)
    gang.listed(pods)
    workers = gang.workers()
    state, reason, code = _state(known, workload, workers)
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


def _state(known: Facts, workload: Object, workers: dict[int, Worker]) -> tuple[str, str, int | None]:
    failure = first_failure(known, workers)
    ended = [one for one in workers.values() if one.ended is not None]
    if len(ended) == known.nnodes and not (known.restarts and not _terminal(workload)):
        if failure is None:
            job = ended[0].ended.message.job if ended[0].ended and ended[0].ended.message else None
            code = min(255, int(job["exit_code"])) if job else 0
            return ("done", "", 0) if code == 0 else ("failed", str((job or {}).get("reason") or ""), code)
        return "failed", failure.text.partition("\n")[0], failure.code
    if workload["metadata"].get("deletionTimestamp"):
        return "stopping", "", None
    if failure is not None and not known.restarts:
        return "failing", failure.text.partition("\n")[0], None
    if (workload.get("spec") or {}).get("suspend"):
        return "queued", "suspended until its queue admits it", None
    started = [one for one in workers.values() if one.started]
    if len(started) == known.nnodes:
        return "running", "", None
    if not workers and _terminal(workload):
        return "ended", "its pods are gone", None
    why = next((one.why for one in workers.values() if one.failing), "")
    return "starting", why or next((one.why for one in workers.values() if one.why), "no pod yet"), None


def _terminal(workload: Object) -> bool:
    conditions = (workload.get("status") or {}).get("conditions") or ()
    return any(
        one.get("type") in ("Complete", "Completed", "Failed") and one.get("status") == "True"
        for one in conditions
    )


def _made_by_another(item: Object) -> bool:
    """A JobSet's Jobs and a Job's pods bear the run's label, too."""
    owners = item["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") for owner in owners)


def _items(door: Door, kind: Kind, namespace: str, query: dict[str, str]) -> list[Object]:
    try:
        answer = door.call("GET", kind.path(namespace), kind.call("list", namespace), query=query)
    except Refused as error:
        if error.status == 404 and kind is JOBSET:
            return []
        if error.status == 403 and kind in WORKLOADS and kind is JOBSET:
            return []  # the built-in roles know nothing of JobSets unless JobSet was installed with its own
        raise
    return list(answer.get("items") or ())


def as_json(row: Row) -> dict[str, Any]:
    """For ``-o json``."""
    return asdict(row) | {"workers": list(row.workers)}
