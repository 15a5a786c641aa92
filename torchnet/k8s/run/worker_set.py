"""The workers of a run, from the pods' status and the events of a watch (pure).

The kubelet and the scheduler write the conditions and container states that are read here (see "Pod Lifecycle" in the
Kubernetes documentation); their reasons are shown unchanged. A pod is identified by its UID. Of two states of one pod,
the one with the higher resourceVersion counts (comparable within one resource type: KEP-5504), and a deleted pod never
comes back. So a new list after a lost watch neither duplicates nor undoes anything.

A run may have a thousand pods, each with ten changes during its start. A change therefore costs the work for one pod
and one rank, and of each pod only what is read here is kept.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from torchnet.constants import (
    ATTEMPT_LABEL,
    INDEX_LABEL,
    NODE_RANK_LABEL,
    PREPARE,
    REPLACE_CODE,
    STOPPED_CODE,
    WORKER,
)
from torchnet.k8s.client.kinds import own
from torchnet.k8s.run.termination_message import TerminationMessage, read

Stage = Literal["queued", "unscheduled", "creating", "preparing", "prepared", "joining", "running", "ended"]


@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended: its agent's termination message or, without one, the cluster's reason in ``why``."""

    code: int
    message: TerminationMessage | None
    why: str = ""
    at: float = 0.0
    """Unix time; 0.0 if the cluster does not report it."""


@dataclass(frozen=True)
class WorkerStatus:
    """The status of one worker, from its pod.

    Attributes:
        why: a text that says why the worker does not run yet.
        joins: its training container, in which it joins, exists.
        started: its script has started, or nothing shows that it has not.
    """

    pod: str
    uid: str
    rank: int
    stage: Stage
    why: str = ""
    joins: bool = False
    started: bool = False
    began: float = 0.0
    """Unix time at which its training container started; 0.0 before."""
    node: str = ""
    ended: WorkerExit | None = None
    failing: bool = False
    """Whether an error delays it, not only waiting."""
    leaving: str = ""
    """Why its pod is being taken away (deleted, evicted, preempted); "" if it is not."""
    disrupted: bool = False
    """Whether the cluster takes its pod away: evicted (also for its own use of the disk), preempted, or on a node that
    is gone.
    """
    replaced: bool = False
    """Whether a Job replaces its pod: the cluster disrupts it, or its agent asks for a replacement."""
    patience: float = 0.0
    """The grace period in seconds of a pod that is being deleted; 0.0 for others."""
    pulls: bool = False
    """Whether its pod is on the network and has no container yet: its image is pulled, unless the node has it."""


def rank_of(pod: dict[str, Any]) -> int | None:
    """The node rank in the pod's labels; None if there is none."""
    labels = pod["metadata"].get("labels") or {}
    text = own(labels, NODE_RANK_LABEL) or labels.get(INDEX_LABEL, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def age_key(pod: dict[str, Any]) -> tuple[int, str, str]:
    """A key that sorts the pods of one rank by age, the newest last: attempt, creation time, UID."""
    meta = pod["metadata"]
    attempt = (meta.get("labels") or {}).get(ATTEMPT_LABEL, "0")
    return int(attempt) if attempt.isdigit() else 0, meta.get("creationTimestamp") or "", meta["uid"]


def worker(pod: dict[str, Any]) -> WorkerStatus:
    """The status of this pod's worker; the pod must have a rank."""
    meta, status = pod["metadata"], pod.get("status") or {}
    rank = rank_of(pod)
    assert rank is not None
    prepare = _container(status, "initContainerStatuses", PREPARE)
    main = _container(status, "containerStatuses", WORKER)
    started = _has_started(status, main)
    stage, why, failing = _stage(status, prepare, main, started=started)
    disrupted = _condition(status, "DisruptionTarget").get("status") == "True"
    return WorkerStatus(
        pod=meta["name"],
        uid=meta["uid"],
        rank=rank,
        stage=stage,
        why=why,
        joins=bool(main.get("running") or main.get("terminated")),
        started=started,
        began=seconds((main.get("running") or main.get("terminated") or {}).get("startedAt")),
        node=(pod.get("spec") or {}).get("nodeName") or "",
        ended=_ended(status, prepare, main) if stage == "ended" else None,
        failing=failing,
        leaving=_leaving(meta, status),
        disrupted=disrupted or status.get("reason") == "Evicted",
        replaced=_is_replaced(prepare, main, started=started, disrupted=disrupted),
        patience=float(meta.get("deletionGracePeriodSeconds") or 0),
        pulls=stage == "creating"
        and not failing
        and _condition(status, "PodReadyToStartContainers").get("status") == "True",
    )


def _container(status: dict[str, Any], field: str, name: str) -> dict[str, Any]:
    """The state of one container: ``{"running": …}``, ``{"waiting": …}`` or ``{"terminated": …}``; {} before."""
    found = [one for one in status.get(field) or () if one.get("name") == name]
    return dict(found[0].get("state") or {}) if found else {}


def _has_started(status: dict[str, Any], main: dict[str, Any]) -> bool:
    """Whether the script has started: by the startup probe, and after the end by the termination message."""
    done = main.get("terminated")
    if not done:
        found = [one for one in status.get("containerStatuses") or () if one.get("name") == WORKER]
        return bool(main.get("running") and found[0].get("started"))
    message = read(done.get("message"))
    if message is not None:
        return message.started is not False  # in messages of version 0.1, None
    return bool(done.get("exitCode") != REPLACE_CODE)


def _is_replaced(prepare: dict[str, Any], main: dict[str, Any], *, started: bool, disrupted: bool) -> bool:
    """Whether a Job ignores how the pod failed: the policy of torchnet.k8s.objects.workloads."""
    if done := main.get("terminated"):
        return bool(done.get("exitCode") == REPLACE_CODE) and not started
    return disrupted or (prepare.get("terminated") or {}).get("exitCode") == REPLACE_CODE


def _stage(
    status: dict[str, Any], prepare: dict[str, Any], main: dict[str, Any], *, started: bool
) -> tuple[Stage, str, bool]:
    if status.get("phase") in ("Succeeded", "Failed") or main.get("terminated"):
        return "ended", "", False
    if (prepare.get("terminated") or {}).get("exitCode"):
        return "ended", "", False  # restartPolicy is Never, so the pod's phase is about to become Failed
    if main.get("running"):
        return ("running", "", False) if started else ("joining", "joining: rendezvous, path checks", False)
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        detail = f"{scheduled.get('message') or scheduled.get('reason') or ''}"
        if scheduled.get("reason") == "SchedulingGated":
            return "queued", f"queued: {detail or 'the pod has scheduling gates'}", False
        return "unscheduled", f"unscheduled: {detail}", True
    if prepare.get("running"):
        return "preparing", "preparing: discovery", False
    for state in (prepare, main):
        waiting = state.get("waiting") or {}
        reason, detail = waiting.get("reason") or "", waiting.get("message") or ""
        if reason and reason not in ("PodInitializing", "ContainerCreating"):
            return "creating", f"{reason}: {detail}" if detail else reason, True
    if prepare.get("terminated"):
        return "prepared", "prepared; the training container is starting", False
    if scheduled.get("status") != "True":
        return "unscheduled", "not scheduled yet", False
    return "creating", "creating: volumes, networks, image", False


def _ended(status: dict[str, Any], prepare: dict[str, Any], main: dict[str, Any]) -> WorkerExit:
    """How the worker ended, by its training container, else its failed init container, else the pod itself."""
    done = main.get("terminated")
    if not done and (prepare.get("terminated") or {}).get("exitCode"):
        done = prepare["terminated"]
    if done:
        message = read(done.get("message"))
        code = int(done.get("exitCode") or 0)
        return WorkerExit(
            code, message, "" if message else _why(status, done, code), seconds(done.get("finishedAt"))
        )
    disruption = _condition(status, "DisruptionTarget")
    detail = (
        disruption.get("message")
        or _eviction(status)
        or status.get("message")
        or status.get("reason")
        or "terminated by the cluster"
    )
    return WorkerExit(0 if status.get("phase") == "Succeeded" else 70, None, " ".join(str(detail).split()))


# In the kubelet's messages about a limit of --ephemeral-storage (pkg/kubelet/eviction/helpers.go).
_DISK = ("ephemeral", 'EmptyDir volume "work"')


def _leaving(meta: dict[str, Any], status: dict[str, Any]) -> str:
    disruption = _condition(status, "DisruptionTarget")
    if disruption.get("status") == "True":
        detail = disruption.get("message") or disruption.get("reason") or ""
        return f"its pod was disrupted: {' '.join(str(detail).split())}"
    return _eviction(status) or ("its pod was deleted" if meta.get("deletionTimestamp") else "")


def _eviction(status: dict[str, Any]) -> str:
    """Why the kubelet has evicted the pod, for its own use of the disk for example, which is no disruption; or ""."""
    if status.get("reason") != "Evicted":
        return ""
    detail = " ".join(str(status.get("message") or "").split())
    fix = "--ephemeral-storage sets the limit" if any(word in detail for word in _DISK) else ""
    return "; ".join(filter(None, (f"its pod was evicted: {detail}", fix)))


def _why(status: dict[str, Any], done: dict[str, Any], code: int) -> str:
    if eviction := _eviction(status):
        return f"exit code {code}: {eviction}"
    reason = str(status.get("reason") or done.get("reason") or "")
    detail = str(_condition(status, "DisruptionTarget").get("message") or status.get("message") or "")
    words = [part for part in (reason if reason not in ("Error", "Completed") else "", detail) if part]
    return ": ".join([f"exit code {code}", *(" ".join(word.split()) for word in words)])


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [one for one in status.get("conditions") or () if one.get("type") == kind]
    return dict(found[0]) if found else {}


def seconds(stamp: str | None) -> float:
    """Unix time of an API time stamp; 0.0 if there is none."""
    try:
        return datetime.fromisoformat(f"{str(stamp)[:19]}+00:00").timestamp()
    except ValueError:
        return 0.0


Pod = dict[str, Any]


@dataclass(frozen=True)
class _Gone:
    """A deleted pod; ``last`` is its last known state."""

    last: Pod


class WorkerSet:
    """Reduces the lists and events of a watch to the status of each worker (:meth:`workers`).

    Args:
        restarts: a pod may replace another one after the training has begun (JobSet).
        replaces: the workload replaces a pod that the cluster has taken away or whose agent has asked for it (all but
            plain pods).
    """

    def __init__(self, nnodes: int, *, restarts: bool = False, replaces: bool = False) -> None:
        self._nnodes = nnodes
        self._restarts = restarts
        self._replaces = replaces
        self._pods: dict[str, Pod] = {}
        self._gone: dict[str, _Gone] = {}
        self._statuses: dict[str, WorkerStatus] = {}  # by UID, of every pod that was ever seen
        self._uids: dict[int, set[str]] = {}  # by rank, the same
        self._departures: set[tuple[str, str]] = set()
        self._forgotten: set[str] = set()  # UIDs
        self.is_listed = False
        """Whether a complete list of the pods has arrived."""
        # The workers as of the last call, and the ranks that have changed since, by the attempts that were asked for.
        self._cache: dict[Container[int] | None, dict[int, WorkerStatus]] = {}
        self._changed: dict[Container[int] | None, set[int]] = {}

    def event(self, kind: str, pod: Pod) -> None:
        """Process one event of a watch: ADDED, MODIFIED or DELETED."""
        uid = pod["metadata"]["uid"]
        rank = rank_of(pod)
        if rank is None:
            return
        newest = self._newer(uid, pod)
        if kind == "DELETED" or uid in self._gone:
            self._pods.pop(uid, None)
            self._gone[uid] = _Gone(newest)
            self._departures.add((uid, "gone"))
        else:
            self._pods[uid] = newest
        one = self._statuses[uid] = worker(newest)
        self._uids.setdefault(rank, set()).add(uid)
        self._note_change(rank)
        if one.leaving:
            self._departures.add((uid, "leaving"))
        if one.ended is not None:
            self._departures.add((uid, "ended"))

    def relist(self, pods: Iterable[Pod]) -> None:
        """Process a complete list: pods that it lacks have been deleted meanwhile."""
        self.is_listed = True
        pods = list(pods)
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in self._pods.keys() - present:
            self._gone[uid] = _Gone(self._pods.pop(uid))
            self._departures.add((uid, "gone"))
            self._note_change(self._statuses[uid].rank)
        for pod in pods:
            self.event("ADDED", pod)

    def _note_change(self, rank: int) -> None:
        for ranks in self._changed.values():
            ranks.add(rank)

    @property
    def departures(self) -> int:
        """How many times a pod has ended, begun to be taken away, or been deleted; it only grows."""
        return len(self._departures)

    def seen(self) -> list[tuple[Pod, bool]]:
        """Every pod that was ever seen, in its last known state, and whether it is gone."""
        return [(pod, False) for pod in self._pods.values()] + [
            (one.last, True) for one in self._gone.values()
        ]

    def forget(self, uids: Iterable[str]) -> frozenset[str]:
        """Exclude these pods from the workers for good; return those that were not excluded before."""
        new = frozenset(uids) - self._forgotten
        self._forgotten |= new
        for uid in new & self._statuses.keys():
            self._note_change(self._statuses[uid].rank)
        return new

    def _newer(self, uid: str, pod: Pod) -> Pod:
        previous = self._pods.get(uid) or (self._gone[uid].last if uid in self._gone else None)
        return _compact(pod) if previous is None or _version(pod) >= _version(previous) else previous

    def workers(self, attempts: Container[int] | None = None) -> dict[int, WorkerStatus]:
        """The worker of each rank that has, or had, a pod.

        The newest pod of a rank is its worker. A pod that was deleted after its training had begun, or after it had
        ended, stays the worker: that it was lost, or how it ended, must not be forgotten. A pod that was deleted or
        evicted earlier, or whose agent asks for a replacement, gives way if the workload replaces it. If the workload
        does not, the worker is lost until somebody else creates another pod.

        Args:
            attempts: consider only the pods of these attempts.
        """
        if attempts not in self._cache:
            self._cache[attempts], self._changed[attempts] = {}, set(self._uids)
        found, changed = self._cache[attempts], self._changed[attempts]
        is_sorted = True
        for rank in changed:
            chosen = self._choose(rank, attempts)
            if chosen is None:
                found.pop(rank, None)
            else:
                is_sorted = is_sorted and rank in found
                found[rank] = chosen
        changed.clear()
        if not is_sorted:
            self._cache[attempts] = found = {rank: found[rank] for rank in sorted(found)}
        return dict(found)

    def _choose(self, rank: int, attempts: Container[int] | None) -> WorkerStatus | None:
        """The worker of this rank among all of its pods; None if it has none."""
        if rank >= self._nnodes:
            return None
        chosen: tuple[tuple[bool, tuple[int, str, str]], WorkerStatus] | None = None
        for uid in self._uids[rank] - self._forgotten:
            gone = uid in self._gone
            pod = self._gone[uid].last if gone else self._pods[uid]
            if attempts is not None and age_key(pod)[0] not in attempts:
                continue
            one = self._statuses[uid]
            if self._replaces and gone and not one.started and one.ended is None:
                continue
            if (
                self._replaces
                and one.ended is not None
                and not one.started
                and self._replaced(one.ended, one)
            ):
                continue
            # Without restarts, a pod that has trained stays the worker: a replacement could not join its job.
            final = not self._restarts and (one.started or (gone and one.ended is not None))
            key = (final, age_key(pod) if not final else _first(age_key(pod)))
            if gone and one.stage != "ended":
                one = _deleted(one)
            if chosen is None or key > chosen[0]:
                chosen = key, one
        return None if chosen is None else chosen[1]

    def _replaced(self, ended: WorkerExit, one: WorkerStatus) -> bool:
        """Whether the workload replaces this worker.

        In a JobSet, any other exit code fails the Job instead (see torchnet.k8s.objects.workloads).
        """
        if not self._restarts:
            return one.replaced
        prepared = ended.code == STOPPED_CODE and not one.joins  # of version 0.1
        return ended.code == REPLACE_CODE or prepared

    def former(self, uids: Container[str]) -> dict[int, WorkerStatus]:
        """The workers of these pods, the newest of each rank, in their last known state."""
        found = {}
        for pod, gone in sorted(self.seen(), key=lambda one: age_key(one[0])):
            if pod["metadata"]["uid"] in uids:
                one = self._statuses[pod["metadata"]["uid"]]
                found[one.rank] = _deleted(one) if gone and one.ended is None else one
        return {rank: found[rank] for rank in sorted(found)}

    @property
    def attempt(self) -> int:
        """The newest attempt among the pods that exist."""
        return max((age_key(pod)[0] for pod in self._pods.values()), default=0)

    def replaced(self) -> dict[int, str]:
        """By rank without a worker: the failure that the agent of its last pod reported."""
        if not self._replaces:
            return {}
        present = self.workers()
        if len(present) >= self._nnodes:
            return {}
        missing = [rank for rank in self._uids if rank not in present]
        uids = [uid for rank in missing for uid in self._uids[rank] if uid in self._pods]
        uids.sort(key=lambda uid: age_key(self._pods[uid]))
        found = [self._statuses[uid] for uid in uids if uid not in self._forgotten]
        detail = {one.rank: one.leaving or _failure_text(one.ended) for one in found if one.ended is not None}
        return {rank: text for rank, text in detail.items() if text}

    def exist(self, uids: Iterable[str]) -> bool:
        """Whether any of these pods exists."""
        return any(uid in self._pods for uid in uids)

    @property
    def is_empty(self) -> bool:
        """Whether no pod exists."""
        return not self._pods

    def pods(self) -> dict[str, Pod]:
        """The pods that exist, by name; of each only what `WorkerSet` keeps."""
        return {pod["metadata"]["name"]: pod for pod in self._pods.values()}


def _failure_text(ended: WorkerExit) -> str:
    message = ended.message
    return message.failure.text if message is not None and message.failure is not None else ""


def _deleted(one: WorkerStatus) -> WorkerStatus:
    """The worker of a pod that was deleted before it reported its end."""
    return replace(one, stage="ended", ended=WorkerExit(70, None, "its pod was deleted, or its node is gone"))


def _first(key: tuple[int, str, str]) -> tuple[int, str, str]:
    """Reverse the order of age: of several pods that have trained, the first one is the job's worker."""
    attempt, made, uid = key
    return -attempt, "".join(chr(0x10FFFF - ord(c)) for c in made), uid


def _compact(pod: Pod) -> Pod:
    """Only what is read of a pod: most of the others' 12 KB are its specification and the names of managed fields."""
    meta = {name: value for name, value in pod["metadata"].items() if name != "managedFields"}
    spec = {"nodeName": (pod.get("spec") or {}).get("nodeName")}
    return {"metadata": meta, "spec": spec, "status": pod.get("status") or {}}


def _version(pod: Pod) -> int:
    text = str(pod["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0
