"""What a pod's status says of a worker (pure): where it stands, and why it does not run.

Sources: kubelet and scheduler write the conditions and container states read here (Kubernetes' "Pod Lifecycle"); the
reasons are their words, shown as they are.
"""

from __future__ import annotations

import calendar
import time
from dataclasses import dataclass
from typing import Any, Literal

from torchnet.names import ATTEMPT_LABEL, INDEX_LABEL, NODE_RANK_LABEL, PREPARE, REPLACE_CODE, WORKER
from torchnet.runtimes.kubernetes.message import Message, read

Stage = Literal["queued", "unscheduled", "creating", "preparing", "prepared", "running", "ended"]


@dataclass(frozen=True)
class Ended:
    """How a worker ended: ``message`` is its agent's; without one, ``why`` is what the cluster says."""

    code: int
    message: Message | None
    why: str = ""
    at: float = 0.0
    """Unix time; 0.0 where the cluster does not tell."""


@dataclass(frozen=True)
class Worker:
    """One pod. ``why`` tells people why it does not run yet; ``started``: its training container has been started."""

    pod: str
    uid: str
    rank: int
    stage: Stage
    why: str = ""
    started: bool = False
    began: float = 0.0
    """Unix time at which its training container was started; 0.0 before."""
    node: str = ""
    ended: Ended | None = None
    failing: bool = False
    """What holds it up is an error, no matter of waiting alone."""
    leaving: str = ""
    """Why its pod is taken away, where it is: deleted, evicted, preempted."""
    replaced: bool = False
    """A Job makes another pod in its place: the cluster takes it away, or its agent has asked for another one."""
    patience: float = 0.0
    """Seconds that the pod gets for its end, where it is deleted."""


def rank_of(pod: dict[str, Any]) -> int | None:
    """The node rank that the pod's labels give it."""
    labels = pod["metadata"].get("labels") or {}
    text = labels.get(NODE_RANK_LABEL, labels.get(INDEX_LABEL, ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def age_key(pod: dict[str, Any]) -> tuple[int, str, str]:
    """Which of two pods of one rank is the newer: the gang's attempt, then the time they were made."""
    meta = pod["metadata"]
    attempt = (meta.get("labels") or {}).get(ATTEMPT_LABEL, "0")
    return int(attempt) if attempt.isdigit() else 0, meta.get("creationTimestamp") or "", meta["uid"]


def worker(pod: dict[str, Any]) -> Worker:
    """Where the worker of this pod stands. The pod must have a rank."""
    meta, status = pod["metadata"], pod.get("status") or {}
    rank = rank_of(pod)
    assert rank is not None
    prepare = _container(status, "initContainerStatuses", PREPARE)
    main = _container(status, "containerStatuses", WORKER)
    started = bool(main.get("running") or main.get("terminated"))
    stage, why, failing = _stage(status, prepare, main)
    return Worker(
        pod=meta["name"],
        uid=meta["uid"],
        rank=rank,
        stage=stage,
        why=why,
        started=started,
        began=seconds((main.get("running") or main.get("terminated") or {}).get("startedAt")),
        node=(pod.get("spec") or {}).get("nodeName") or "",
        ended=_ended(status, prepare, main) if stage == "ended" else None,
        failing=failing,
        leaving=_leaving(meta, status),
        replaced=(prepare.get("terminated") or {}).get("exitCode") == REPLACE_CODE
        or _condition(status, "DisruptionTarget").get("status") == "True",
        patience=float(meta.get("deletionGracePeriodSeconds") or 0),
    )


def _container(status: dict[str, Any], field: str, name: str) -> dict[str, Any]:
    """The state of one container: ``{"running": …}``, ``{"waiting": …}`` or ``{"terminated": …}``; {} before."""
    found = [one for one in status.get(field) or () if one.get("name") == name]
    return dict(found[0].get("state") or {}) if found else {}


def _stage(status: dict[str, Any], prepare: dict[str, Any], main: dict[str, Any]) -> tuple[Stage, str, bool]:
    if status.get("phase") in ("Succeeded", "Failed") or main.get("terminated"):
        return "ended", "", False
    if (prepare.get("terminated") or {}).get("exitCode"):
        return "ended", "", False  # restartPolicy is Never: the kubelet says so of the pod in a moment
    if main.get("running"):
        return "running", "", False
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        said = f"{scheduled.get('message') or scheduled.get('reason') or ''}"
        if scheduled.get("reason") == "SchedulingGated":
            return "queued", f"queued: {said or 'its scheduling gates are closed'}", False
        return "unscheduled", f"unscheduled: {said}", True
    if prepare.get("running"):
        return "preparing", "prepares: discovers, joins, checks the paths", False
    for state in (prepare, main):
        waiting = state.get("waiting") or {}
        reason, said = waiting.get("reason") or "", waiting.get("message") or ""
        if reason and reason not in ("PodInitializing", "ContainerCreating"):
            return "creating", f"{reason}: {said}" if said else reason, True
    if prepare.get("terminated"):
        return "prepared", "prepared; its training container is being started", False
    if scheduled.get("status") != "True":
        return "unscheduled", "not scheduled yet", False
    return "creating", "being created (volumes, networks, image)", False


def _ended(status: dict[str, Any], prepare: dict[str, Any], main: dict[str, Any]) -> Ended:
    """The failing container's end: the training container's, else the preparation's, else the pod's own."""
    done = main.get("terminated")
    if not done and (prepare.get("terminated") or {}).get("exitCode"):
        done = prepare["terminated"]
    if done:
        message = read(done.get("message"))
        code = int(done.get("exitCode") or 0)
        return Ended(
            code, message, "" if message else _why(status, done, code), seconds(done.get("finishedAt"))
        )
    disruption = _condition(status, "DisruptionTarget")
    said = (
        disruption.get("message") or status.get("message") or status.get("reason") or "the cluster ended it"
    )
    return Ended(0 if status.get("phase") == "Succeeded" else 70, None, " ".join(str(said).split()))


def _leaving(meta: dict[str, Any], status: dict[str, Any]) -> str:
    disruption = _condition(status, "DisruptionTarget")
    if disruption.get("status") == "True":
        said = disruption.get("message") or disruption.get("reason") or ""
        return f"its pod was taken away: {' '.join(str(said).split())}"
    return "its pod was deleted" if meta.get("deletionTimestamp") else ""


def _why(status: dict[str, Any], done: dict[str, Any], code: int) -> str:
    reason = str(status.get("reason") or done.get("reason") or "")
    said = str(_condition(status, "DisruptionTarget").get("message") or status.get("message") or "")
    words = [part for part in (reason if reason not in ("Error", "Completed") else "", said) if part]
    return ": ".join([f"exit code {code}", *(" ".join(word.split()) for word in words)])


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [one for one in status.get("conditions") or () if one.get("type") == kind]
    return dict(found[0]) if found else {}


def seconds(stamp: str | None) -> float:
    """Unix time of an API time stamp; 0.0 where there is none."""
    try:
        return float(calendar.timegm(time.strptime(str(stamp)[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return 0.0
