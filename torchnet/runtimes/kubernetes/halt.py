"""The end of a run's workers where they are: what was made stays, with its logs and last words (``--keep``).

A pod whose activeDeadlineSeconds have passed since its start is ended by its kubelet, with the pod's own time, and
stays (ActiveDeadlineHandler in Kubernetes' pkg/kubelet/active_deadline.go); of a pod's few fields that can be changed
this is one. A Job that is suspended, or has a deadline of its own, deletes its pods instead, and a signal to the agents
needs the right to execute commands in pods.
"""

from __future__ import annotations

import queue
from typing import Any

from torchnet.errors import ClusterError
from torchnet.runtimes.kubernetes.door import MERGE_PATCH, Door
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.logs import Readers
from torchnet.runtimes.kubernetes.pods import rank_of, worker
from torchnet.runtimes.kubernetes.refused import Refused
from torchnet.runtimes.kubernetes.resources import JOBSET, POD, selector

_GONE = (404, 409)  # the pod, or as it was known
_NOW = 1  # seconds; the least that the API takes
_ROUNDS, _PAUSE = 3, 0.5  # a controller may just be making a pod


def halt(door: Door, facts: Facts) -> str:
    """End the workers, and leave their objects. Why pods are gone or go on all the same, or "".

    Raises:
        ClusterError: the API server cannot be reached, or the pods may not be listed.
    """
    if facts.kind is JOBSET and (_starts_again(door, facts) or not all(map(_trains, _pods(door, facts)))):
        _patch_workload(door, facts, {"suspend": True})
        return "a JobSet would start them again, so it is suspended, and its pods and their logs are gone"
    done: set[str] = set()
    why = ""
    for _ in range(_ROUNDS):
        fresh = [pod for pod in _pods(door, facts) if _runs(pod) and pod["metadata"]["uid"] not in done]
        why = why or _end(door, facts.namespace, [str(pod["metadata"]["name"]) for pod in fresh])
        done |= {pod["metadata"]["uid"] for pod in fresh}
        if door.stop.wait(_PAUSE):
            break
    return why


def _pods(door: Door, facts: Facts) -> list[dict[str, Any]]:
    query = {"labelSelector": selector(facts.run)}
    call = POD.call("list", facts.namespace)
    return list(door.call("GET", POD.path(facts.namespace), call, query=query).get("items") or ())


def _trains(pod: dict[str, Any]) -> bool:
    """Whether it has come so far: one of a JobSet that has not is replaced when it is told to stop."""
    return rank_of(pod) is None or worker(pod).started


def _runs(pod: dict[str, Any]) -> bool:
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not ended and not pod["metadata"].get("deletionTimestamp")


def _end(door: Door, namespace: str, pods: list[str]) -> str:
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    readers = Readers()
    for pod in pods:
        readers.take(lambda pod=pod: answers.put(_one(door, namespace, pod)))  # type: ignore[misc]
    told = [answers.get() for _ in pods]
    return next((why for why in told if why), "")


def _one(door: Door, namespace: str, pod: str) -> str:
    try:
        door.call(
            "PATCH",
            POD.path(namespace, pod),
            POD.call("patch", namespace, pod),
            query={"fieldManager": "torchnet"},
            body={"spec": {"activeDeadlineSeconds": _NOW}},
            content=MERGE_PATCH,
        )
    except Refused as error:
        return "" if error.status in _GONE else f"{pod} goes on: {error.text}"
    except ClusterError as error:
        return f"{pod} goes on: {error.text}"
    except Exception as error:  # told, like all that keeps a worker from being ended
        return f"{pod} goes on: {type(error).__name__}: {error}"
    return ""


def _starts_again(door: Door, facts: Facts) -> bool:
    """Whether the JobSet has restarts left: what ends is started again then."""
    path, call = JOBSET.path(facts.namespace, facts.name), JOBSET.call("get", facts.namespace, facts.name)
    try:
        found = door.call("GET", path, call)
    except Refused as error:
        if error.status == 404:
            return False
        raise
    limit = ((found.get("spec") or {}).get("failurePolicy") or {}).get("maxRestarts") or 0
    return int((found.get("status") or {}).get("restarts") or 0) < int(limit)


def _patch_workload(door: Door, facts: Facts, spec: dict[str, Any]) -> None:
    kind, namespace, name = facts.kind, facts.namespace, facts.name
    door.call(
        "PATCH",
        kind.path(namespace, name),
        kind.call("patch", namespace, name),
        query={"fieldManager": "torchnet"},
        body={"spec": spec},
        content=MERGE_PATCH,
    )
