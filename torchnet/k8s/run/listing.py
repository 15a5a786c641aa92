"""The runs of a namespace: found by their label, summarized for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from torchnet.config.parsing import quote
from torchnet.constants import QUEUE_LABEL, RUN_LABEL, STATUS_ANNOTATION, WORKER, is_rail
from torchnet.errors import ClusterError, StatusError, UsageError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiCall, ApiRefusal
from torchnet.k8s.client.kinds import JOB, JOBSET, POD, RUN_LABELS, Kind, kind_of, run_of, selector
from torchnet.k8s.client.kueue_api import JOB_UID_LABEL, list_workloads, served_version
from torchnet.k8s.client.watch import list_pages
from torchnet.k8s.run.outcome import first_failure
from torchnet.k8s.run.queue_status import evictions, queue_state
from torchnet.k8s.run.run_info import RunInfo, read_run_info
from torchnet.k8s.run.suspension import evicted, suspension, terminal
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus, seconds
from torchnet.network.network_status import parse
from torchnet.text import listed, printable

Object = dict[str, Any]
WORKLOAD_KINDS = (JOBSET, JOB, POD)  # the first that has a run describes it
_REASON = 200  # characters; longer reasons are cut
_FEW = 8  # queued runs whose Workloads are read one by one
MANAGED = "app.kubernetes.io/managed-by=torchnet"  # selects the objects of all runs, and others
_PLAIN_PODS = "!batch.kubernetes.io/job-name"  # selects pods that no Job has created


@dataclass(frozen=True)
class RunRow:
    """One run as ``torchnet status`` shows it.

    Attributes:
        exit_code: None until all workers have ended.
        workers: Each worker's pod, node, addresses and state; only if the run is shown alone.
        nodes: The nodes of all workers, each once.
        image: The workers' image; "" if it cannot be read.
        attempt: The number of the present attempt, from 1, or of the next one while the run is suspended; None if it
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
    nodes: tuple[str, ...] = ()
    image: str = ""
    attempt: int | None = None


@dataclass(frozen=True)
class RunTable:
    """The rows of ``torchnet status``; ``remark`` says which runs may be missing, and why."""

    rows: list[RunRow]
    remark: str = ""


def table(client: ApiClient, namespace: str, run: str | None = None, labels: str = "") -> RunTable:
    """All runs of the namespace, or only ``run`` with its workers, the newest first.

    Args:
        namespace: "" for all namespaces.
        labels: a label selector that the runs' workloads must match.

    Raises:
        UsageError: no such run, or ``labels`` is not a selector.
        ClusterError: Jobs or pods cannot be listed, or the server cannot be reached.
    """
    workloads, unseen = _list_workloads(client, namespace, run, labels, cached=True)
    if run is not None and not any(workloads.values()):
        # What the API server's cache does not have yet must not be reported as missing.
        workloads, unseen = _list_workloads(client, namespace, run, labels)
    pods = workloads[POD]
    if labels:
        # The labels of a workload need not be those of its pods.
        pods = _list(client, POD, namespace, run, cached=True)
    search = build_search(namespace, workloads, unseen)
    return build_table(search, pods, run, _kueue_workloads(client, namespace, search.found.values()))


def build_table(
    search: RunSearch,
    pods: Sequence[Object],
    run: str | None = None,
    queued: Mapping[str, Object] = MappingProxyType({}),
) -> RunTable:
    """The rows of the runs that a search has found, of ``run`` alone with its workers.

    Args:
        pods: The pods of these runs, and perhaps of others.
        queued: Kueue's Workloads by the UID of their Job or JobSet, as far as they are known.

    Raises:
        UsageError: no such run.
        ClusterError: ``run`` cannot be read.
    """
    if run is not None and run not in search.names:
        raise search.missing(run)
    own: dict[str, list[Object]] = {name: [] for name in search.names}
    for pod in pods:
        own.setdefault(_key(pod, search.namespace), []).append(pod)
    found = [
        _row(
            body,
            own[name],
            queued.get(str(body["metadata"].get("uid"))),
            detailed=run is not None,
        )
        for name, body in search.found.items()
    ]
    found += [
        _unknown_row(body, own[name], JOBSET.name, "its JobSet cannot be read")
        for name, body in search.hidden.items()
    ]
    return RunTable(sorted(found, key=lambda row: row.age_s), search.remark)


def _unknown_row(body: Object, pods: Sequence[Object], workload: str, why: str) -> RunRow:
    meta = body["metadata"]
    age = round(max(0.0, time.time() - seconds(meta.get("creationTimestamp"))), 0)
    return RunRow(
        run_of(meta)[0],
        meta["namespace"],
        workload,
        0,
        len(pods),
        "unknown",
        printable(why, _REASON),
        age,
        None,
    )


def _kueue_workloads(client: ApiClient, namespace: str, found: Iterable[Object]) -> dict[str, Object]:
    """Kueue's Workloads by the UID of their Job or JobSet; {} if they cannot be read.

    A few are read one by one, because a list has the pod templates of everybody else's, too.
    """
    metas = [body["metadata"] for body in found if kind_of(body) is not POD]
    queued = [meta for meta in metas if QUEUE_LABEL in (meta.get("labels") or {})]
    if not queued:
        return {}
    try:
        version = served_version(client)
        if not version:
            bodies = []
        elif len(queued) > _FEW:
            bodies = list_workloads(client, version, namespace)
        else:
            parts = [list_workloads(client, version, one["namespace"], str(one["uid"])) for one in queued]
            bodies = [body for part in parts for body in part]
    except ClusterError:
        return {}  # not allowed, or Kueue's controller is down
    return {str((body["metadata"].get("labels") or {}).get(JOB_UID_LABEL)): body for body in bodies}


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
    replaces = info.kind is not POD and not terminal(workload)
    worker_set = WorkerSet(info.nnodes, restarts=info.restarts, replaces=replaces)
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
            **_addresses(worker_set.pods().get(one.pod) or {}),
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
        nodes=tuple(sorted({one.node for one in workers.values() if one.node})),
        image=printable(_image(workload), _REASON),
        attempt=_attempt(info, workload, queued),
    )


def _addresses(pod: Object) -> dict[str, Any]:
    """The pod's address on eth0, and those on the rails by interface, as far as they are known."""
    text = ((pod.get("metadata") or {}).get("annotations") or {}).get(STATUS_ANNOTATION)
    try:
        entries = parse(text) if text else ()
    except StatusError:
        entries = ()
    rails = {
        one.interface: one.ips[0] for one in entries if one.interface and one.ips and is_rail(one.interface)
    }
    return {"ip": str((pod.get("status") or {}).get("podIP") or ""), "backend": dict(sorted(rails.items()))}


def _image(workload: Object) -> str:
    """The image of the workers' training container; "" if the workload has none that torchnet would make."""
    try:
        spec = workload["spec"]
        if "replicatedJobs" in spec:
            spec = spec["replicatedJobs"][0]["template"]["spec"]
        if "template" in spec:
            spec = spec["template"]["spec"]
        return next(str(one["image"]) for one in spec["containers"] if one["name"] == WORKER)
    except (KeyError, IndexError, TypeError, StopIteration):
        return ""


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
        namespace: the namespace that was searched; "" for all.
        found: by run name, the workload that describes the run: its JobSet, its Job, or its first plain pod. If all
            namespaces were searched, the names are NAMESPACE/RUN.
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
    return build_search(namespace, *_list_workloads(client, namespace, run, "", metadata=True))


def selector_of(run: str | None, labels: str = "", label: str = RUN_LABEL) -> str:
    """The label selector of one run's objects, or of all runs', that also match ``labels``.

    Those of all runs are found by what the objects of every version have in common, because a selector cannot ask for
    one of two keys. They include objects that belong to no run.

    Args:
        label: the key of the label with the run's name.
    """
    return ",".join(filter(None, (selector(run, label) if run else MANAGED, labels)))


def _list_workloads(
    client: ApiClient,
    namespace: str,
    run: str | None,
    labels: str,
    *,
    metadata: bool = False,
    cached: bool = False,
) -> tuple[dict[Kind, list[Object]], ApiRefusal | None]:
    """The objects that may be runs' workloads, and why JobSets cannot be read (None if they can).

    The label of version 0.1 is tried only if no run of this name has the current label.

    Args:
        metadata: The objects' metadata are enough, and of the pods only those that are workloads themselves.
        cached: The API server may answer from its cache, which can be some time behind.
    """
    for label in RUN_LABELS if run else (RUN_LABEL,):
        found: dict[Kind, list[Object]] = {}
        unseen = None
        for kind in WORKLOAD_KINDS:
            chosen = f"{labels},{_PLAIN_PODS}".strip(",") if kind is POD and metadata else labels
            try:
                items = _list(client, kind, namespace, run, chosen, label, metadata=metadata, cached=cached)
            except ApiRefusal as error:
                if kind is not JOBSET or error.status not in (403, 404):
                    raise selector_error(error, labels) from None
                unseen = unseen_jobsets(client, error)
            else:
                found[kind] = items
        if any(found.values()):
            break
    return found, unseen


def selector_error(error: ApiRefusal, labels: str) -> UsageError | ApiRefusal:
    """The error for a list that the server has refused: a usage error if ``labels`` is not a selector."""
    if error.status != 400 or not labels:
        return error
    text = f"-l {quote(labels)} is not a label selector: {error.message}"
    return UsageError(text, fix="-l KEY=VALUE, KEY!=VALUE or KEY, separated by commas")


def unseen_jobsets(client: ApiClient, error: ApiRefusal) -> ApiRefusal | None:
    """``error`` if it means that there may be JobSets which this user may not read.

    The built-in roles do not include JobSets, and the server checks permissions before it checks whether the kind
    exists: a 403 does not mean that the cluster has JobSets.
    """
    return error if error.status == 403 and _has_jobsets(client) else None


def build_search(
    namespace: str, workloads: Mapping[Kind, Iterable[Object]], unseen: ApiRefusal | None
) -> RunSearch:
    """Tell the runs' workloads from the objects that these have created.

    Args:
        workloads: the objects of each kind of `WORKLOAD_KINDS`, as far as they can be read.
        unseen: why JobSets cannot be read.
    """
    found: dict[str, Object] = {}
    hidden: dict[str, Object] = {}
    for kind in WORKLOAD_KINDS:
        for item in workloads.get(kind, ()):
            if not run_of(item["metadata"])[0]:
                continue
            item = item | {"apiVersion": kind.api, "kind": kind.name}
            name = _key(item, namespace)
            controller = _controller_kind(item)
            if not controller:
                found.setdefault(name, item)
            elif controller == JOBSET.name and unseen:
                hidden.setdefault(name, item)
    return RunSearch(
        namespace, found, {name: item for name, item in hidden.items() if name not in found}, unseen
    )


def _list(
    client: ApiClient,
    kind: Kind,
    namespace: str,
    run: str | None,
    labels: str = "",
    label: str = RUN_LABEL,
    *,
    metadata: bool = False,
    cached: bool = False,
) -> list[Object]:
    """All objects of this kind that `selector_of` selects."""
    query = {"labelSelector": selector_of(run, labels, label)} | ({"resourceVersion": "0"} if cached else {})
    path, call = kind.path(namespace), kind.call("list", namespace)
    return list_pages(client, path, call, query, metadata=metadata)[0]


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


def _key(item: Object, namespace: str) -> str:
    """The name of the item's run, as `RunSearch` has it if ``namespace`` was searched."""
    meta = item["metadata"]
    name, _ = run_of(meta)
    return name if namespace else f"{meta['namespace']}/{name}"


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
