"""The runs of a namespace: found by their label, summarized for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torchnet.constants import QUEUE_LABEL, RUN_LABEL
from torchnet.errors import ClusterError, UsageError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiCall, ApiRefusal
from torchnet.k8s.client.kinds import JOB, JOBSET, POD, selector
from torchnet.k8s.client.kueue import JOB_UID_LABEL, list_workloads, served_version
from torchnet.k8s.run.outcome import first_failure
from torchnet.k8s.run.queue_status import evictions, queue_state
from torchnet.k8s.run.run_info import RunInfo, read_run_info
from torchnet.k8s.run.suspension import evicted, suspension, terminal
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus, seconds
from torchnet.text import listed, printable

Object = dict[str, Any]
_REASON = 200  # characters; longer reasons are cut


@dataclass(frozen=True)
class RunRow:
    """One run as ``torchnet status`` shows it.

    Attributes:
        exit_code: None until all workers have ended.
        attempt: the number of the present attempt, from 1, or of the next one while the run is suspended; None if it
            is not known how often the run was suspended.
    """

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
    attempt: int | None = None


@dataclass(frozen=True)
class RunTable:
    """The rows of ``torchnet status``; ``remark`` says which runs may be missing, and why."""

    rows: list[RunRow]
    remark: str = ""


def table(client: ApiClient, namespace: str, run: str | None = None) -> RunTable:
    """All runs of the namespace, or only ``run`` with its workers, the newest first.

    Raises:
        UsageError: no such run.
        ClusterError: Jobs or pods cannot be listed, or the server cannot be reached.
    """
    search = survey(client, namespace, run)
    if run is not None and run not in search.names:
        raise search.missing(run)
    query = {"labelSelector": selector(run) if run else RUN_LABEL}
    answer = client.call("GET", POD.path(namespace), POD.call("list", namespace), query=query)
    pods: dict[str, list[Object]] = {name: [] for name in search.names}
    for pod in answer.get("items") or ():
        pods.setdefault(str((pod["metadata"].get("labels") or {}).get(RUN_LABEL)), []).append(pod)
    queued = _kueue_workloads(client, namespace, search.found.values())
    found = [
        _row(
            body,
            pods[name],
            queued.get(str(body["metadata"].get("uid")), queued.get(name)),
            detailed=run is not None,
        )
        for name, body in search.found.items()
    ]
    found += [
        _unknown_row(body, pods[name], JOBSET.name, "its JobSet cannot be read")
        for name, body in search.hidden.items()
    ]
    return RunTable(sorted(found, key=lambda row: row.age_s), search.remark)


def _unknown_row(body: Object, pods: Sequence[Object], workload: str, why: str) -> RunRow:
    meta = body["metadata"]
    age = round(max(0.0, time.time() - seconds(meta.get("creationTimestamp"))), 0)
    name = str((meta.get("labels") or {}).get(RUN_LABEL))
    return RunRow(
        name, meta["namespace"], workload, 0, len(pods), "unknown", printable(why, _REASON), age, None
    )


def _kueue_workloads(client: ApiClient, namespace: str, found: Iterable[Object]) -> dict[str, Object]:
    """Kueue's Workloads by the UID of their Job or JobSet, or by the name of a group of pods; {} if unreadable."""
    if not any(QUEUE_LABEL in (body["metadata"].get("labels") or {}) for body in found):
        return {}
    try:
        version = served_version(client)
        bodies = list_workloads(client, version, namespace) if version else []
    except ClusterError:
        return {}  # not allowed, or Kueue's controller is down
    return {
        str((body["metadata"].get("labels") or {}).get(JOB_UID_LABEL) or body["metadata"]["name"]): body
        for body in bodies
    }


def _attempt(info: RunInfo, workload: Object, queued: Object | None) -> int | None:
    """The number of the run's attempt; None if it is not known."""
    restarts = (workload.get("status") or {}).get("restarts") or 0
    if info.kind is POD:
        return 1
    if info.queue and queued is None:
        return None
    if queued is None and suspension(workload).resumed:
        return None  # by hand: nobody counts that
    return 1 + evictions(queued or {}) + (restarts if isinstance(restarts, int) else 0)


def _row(workload: Object, pods: Sequence[Object], queued: Object | None, *, detailed: bool) -> RunRow:
    try:
        info = read_run_info(workload)
    except UsageError as error:
        # One damaged run, or the leftovers of a verification, must not hide the other runs.
        return _unknown_row(workload, pods, workload["kind"], error.text)
    worker_set = WorkerSet(info.nnodes, restarts=info.restarts, replaces=info.kind is not POD)
    worker_set.relist(pods)
    found = suspension(workload)
    worker_set.forget(pod["metadata"]["uid"] for pod in pods if found.ended(pod, gone=False))
    workers = worker_set.workers()
    state, reason, code = _state(info, workload, workers, pods)
    if state == "queued" and queued is not None:
        state, reason = queue_state(queued) if any(queue_state(queued)) else (state, reason)
    details = tuple(
        {
            "worker": info.node(rank),
            "pod": one.pod,
            "node": one.node,
            "state": one.stage,
            "reason": printable(one.why or (one.ended.why if one.ended else ""), _REASON),
            "exit_code": one.ended.code if one.ended else None,
        }
        for rank, one in workers.items()
    )
    return RunRow(
        run=info.run,
        namespace=info.namespace,
        workload=info.kind.name,
        ready=sum(one.started and one.ended is None for one in workers.values()),
        total=info.nnodes,
        state=state,
        reason=printable(reason, _REASON),
        age_s=round(max(0.0, time.time() - info.created), 0),
        exit_code=code,
        workers=details if detailed else (),
        attempt=_attempt(info, workload, queued),
    )


def _state(
    info: RunInfo, workload: Object, workers: dict[int, WorkerStatus], pods: Sequence[Object]
) -> tuple[str, str, int | None]:
    found = suspension(workload)
    if found.active and not workload["metadata"].get("deletionTimestamp"):
        return found.state, found.reason(info.kind.name), None
    if info.kind is POD and (why := evicted(pods)):
        return "evicted", why, None
    failure = first_failure(info, workers)
    ended = [one for one in workers.values() if one.ended is not None]
    if len(ended) == info.nnodes and not (info.restarts and not terminal(workload)):
        if failure is None:
            job = ended[0].ended.message.job if ended[0].ended and ended[0].ended.message else None
            code = min(255, int(job["exit_code"])) if job else 0
            return ("done", "", 0) if code == 0 else ("failed", str((job or {}).get("reason") or ""), code)
        return "failed", failure.text.partition("\n")[0], failure.code
    if workload["metadata"].get("deletionTimestamp"):
        return "stopping", "", None
    if failure is not None and not info.restarts:
        return "failing", failure.text.partition("\n")[0], None
    started = [one for one in workers.values() if one.started]
    if len(started) == info.nnodes:
        return "running", "", None
    if not workers and terminal(workload):
        return "ended", "its pods no longer exist", None
    why = next((one.why for one in workers.values() if one.failing), "")
    return "starting", why or next((one.why for one in workers.values() if one.why), "no pod yet"), None


def as_json(row: RunRow) -> dict[str, Any]:
    """The row as ``-o json`` prints it."""
    return asdict(row) | {"workers": list(row.workers)}


@dataclass(frozen=True)
class RunSearch:
    """The runs that a search by label has found.

    Attributes:
        found: by run name, the workload that describes the run: its JobSet, its Job, or its first plain pod.
        hidden: runs whose JobSet this user may not read; by run name, an object that the JobSet has created.
        unseen: why JobSets cannot be read; None if they can, or if the cluster has no such kind.
    """

    namespace: str
    found: Mapping[str, Object]
    hidden: Mapping[str, Object]
    unseen: ApiRefusal | None = None

    @property
    def names(self) -> list[str]:
        return sorted({*self.found, *self.hidden})

    @property
    def remark(self) -> str:
        """A note that runs may be missing from the list; "" if none can be."""
        return f"JobSets cannot be read: {self.unseen}" if self.unseen else ""

    def missing(self, run: str) -> UsageError | ClusterError:
        """The error for a run that is not in ``found``."""
        name = printable(run, 80)
        if self.unseen and run in self.hidden:
            text = f"the JobSet of run {name} cannot be read: {self.unseen.text}"
            return ClusterError(text, fix=self.unseen.fix)
        return self._not_found(f"run {name} not found in namespace", f"torchnet status -n {self.namespace}")

    def only_run(self) -> str:
        """The name of the only run.

        Raises:
            UsageError: there is no run, or more than one.
        """
        if not self.names:
            raise self._not_found("no runs found in namespace", "-n NAMESPACE, or torchnet launch …")
        if len(self.names) > 1:
            raise UsageError(
                f"{len(self.names)} runs in namespace {self.namespace}: {listed(self.names, limit=20)}",
                fix="specify one of them",
            )
        return self.names[0]

    def _not_found(self, text: str, fix: str) -> UsageError:
        if self.unseen is None:
            return UsageError(f"{text} {self.namespace}", fix=fix)
        return UsageError(f"{text} {self.namespace}; {self.remark}", fix=self.unseen.fix)


def survey(client: ApiClient, namespace: str, run: str | None = None) -> RunSearch:
    """Find all runs of the namespace, or only ``run``.

    Raises:
        ClusterError: Jobs or pods cannot be listed, or the server cannot be reached.
    """
    found: dict[str, Object] = {}
    hidden: dict[str, Object] = {}
    unseen = None
    for kind in (JOBSET, JOB, POD):
        query = {"labelSelector": selector(run) if run else RUN_LABEL}
        try:
            answer = client.call("GET", kind.path(namespace), kind.call("list", namespace), query=query)
        except ApiRefusal as error:
            if kind is not JOBSET or error.status not in (403, 404):
                raise
            # The built-in roles do not include JobSets, and the server checks permissions before it checks whether
            # the kind exists: a 403 does not mean that the cluster has JobSets.
            unseen = error if error.status == 403 and _has_jobsets(client) else None
            continue
        for item in answer.get("items") or ():
            item |= {"apiVersion": kind.api, "kind": kind.name}
            name = str((item["metadata"].get("labels") or {}).get(RUN_LABEL))
            controller = _controller_kind(item)
            if not controller:
                found.setdefault(name, item)
            elif controller == JOBSET.name and unseen:
                hidden.setdefault(name, item)
    return RunSearch(
        namespace, found, {name: item for name, item in hidden.items() if name not in found}, unseen
    )


def find(client: ApiClient, namespace: str, run: str | None) -> RunInfo:
    """The run of this name, or the only run of the namespace if ``run`` is None.

    Raises:
        UsageError: there is no such run, or there is more than one.
        ClusterError: the run cannot be read.
    """
    search = survey(client, namespace, run)
    name = search.only_run() if run is None else run
    if name not in search.found:
        raise search.missing(name)
    return read_run_info(search.found[name])


def _controller_kind(item: Object) -> str:
    """The kind of the object's controller; "" if none. Jobs of a JobSet and pods of a Job have the label, too."""
    owners = item["metadata"].get("ownerReferences") or ()
    return next((str(owner.get("kind")) for owner in owners if owner.get("controller")), "")


def _has_jobsets(client: ApiClient) -> bool:
    """Whether the cluster has the kind JobSet; every user may read the API discovery."""
    try:
        client.call("GET", f"/apis/{JOBSET.api}", ApiCall("get", JOBSET.api))
    except ApiRefusal as error:
        return error.status != 404
    return True
