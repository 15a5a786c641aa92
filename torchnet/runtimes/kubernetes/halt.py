"""The end of a run's workers where they are: what was made stays, with its logs and last words (``--keep``).

A pod whose activeDeadlineSeconds have passed since its start is ended by its kubelet, with the pod's own time, and
stays (ActiveDeadlineHandler in Kubernetes' pkg/kubelet/active_deadline.go); of a pod's few fields that can be changed
this is one. A Job's own deadline, or its suspension, deletes the pods that run: it comes last, when none does any more,
and sees to it that no pod is made later (for one that was to be replaced, by a queue, by a quota that has room again).
"""

from __future__ import annotations

import queue
import time
from typing import Any

from torchnet.errors import ClusterError
from torchnet.runtimes.kubernetes.door import MERGE_PATCH, Door
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.logs import Readers
from torchnet.runtimes.kubernetes.refused import Refused
from torchnet.runtimes.kubernetes.resources import JOB, JOBSET, POD, Kind, selector

_GONE = (404, 409)  # the object, or as it was known
_NOW = {"spec": {"activeDeadlineSeconds": 1}}  # the least that the API takes
_PAUSE = 0.3


def starts_again(door: Door, facts: Facts) -> bool:
    """Whether it is a JobSet with restarts left: whatever ends in it is deleted and started again.

    Raises:
        ClusterError: it cannot be looked at.
    """
    if facts.kind is not JOBSET:
        return False
    path, call = JOBSET.path(facts.namespace, facts.name), JOBSET.call("get", facts.namespace, facts.name)
    try:
        found = door.call("GET", path, call)
    except Refused as error:
        if error.status == 404:
            return False
        raise
    limit = ((found.get("spec") or {}).get("failurePolicy") or {}).get("maxRestarts") or 0
    return int((found.get("status") or {}).get("restarts") or 0) < int(limit)


def halt(door: Door, facts: Facts, patience: float) -> str:
    """End the workers within ``patience`` seconds, and leave their objects. What could not be done so, or "".

    Raises:
        ClusterError: the API server cannot be reached, or the pods may not be listed.
    """
    until = time.monotonic() + patience
    told: set[str] = set()
    why = ""
    while True:
        there = [pod for pod in _pods(door, facts) if _runs(pod)]
        fresh = [pod for pod in there if pod["metadata"]["uid"] not in told]
        told |= {pod["metadata"]["uid"] for pod in fresh}
        why = _end(door, facts.namespace, [str(pod["metadata"]["name"]) for pod in fresh]) or why
        # One that no node has taken has nothing to be kept.
        held = [pod for pod in there if (pod.get("spec") or {}).get("nodeName")]
        if why or not held or time.monotonic() > until or door.stop.wait(_PAUSE):
            break
    if facts.kind is POD:
        return f"goes on: {why}" if why else ""
    failed = _patch(door, JOB, facts.namespace, facts.maker)
    if failed:
        return f"may go on: {failed}"
    return f"its pods could not be ended where they were, and are deleted: {why}" if why else ""


def _pods(door: Door, facts: Facts) -> list[dict[str, Any]]:
    query = {"labelSelector": selector(facts.run)}
    call = POD.call("list", facts.namespace)
    return list(door.call("GET", POD.path(facts.namespace), call, query=query).get("items") or ())


def _runs(pod: dict[str, Any]) -> bool:
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not ended and not pod["metadata"].get("deletionTimestamp")


def _end(door: Door, namespace: str, pods: list[str]) -> str:
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    readers = Readers()
    for pod in pods:
        readers.take(lambda pod=pod: answers.put(_patch(door, POD, namespace, pod)))  # type: ignore[misc]
    told = [answers.get() for _ in pods]
    return next((why for why in told if why), "")


def _patch(door: Door, kind: Kind, namespace: str, name: str) -> str:
    """Let its time be over; why not, or ""."""
    try:
        door.call(
            "PATCH",
            kind.path(namespace, name),
            kind.call("patch", namespace, name),
            query={"fieldManager": "torchnet"},
            body=_NOW,
            content=MERGE_PATCH,
        )
    except Refused as error:
        return "" if error.status in _GONE else error.text
    except ClusterError as error:
        return error.text
    except Exception as error:  # told, like all that keeps a worker from being ended
        return f"{name}: {type(error).__name__}: {error}"
    return ""
