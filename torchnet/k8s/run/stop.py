"""The stop of a run, in a thread of its own: its workload and pods are deleted, or ended in place (``--keep``).

A second deletion does not shorten a termination that the kubelet has begun (SyncTerminatingPod in its kubelet.go,
kubernetes#113606), so a forced stop kills the processes in the containers. With ``--keep``, a pod whose
activeDeadlineSeconds have passed is ended by its kubelet and stays (ActiveDeadlineHandler in
pkg/kubelet/active_deadline.go). A Job's own deadline, or its suspension, deletes running pods: it is set last, when
no pod runs, so that no replacement is created later.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from torchnet.constants import AGENT_ZIP, CODE_DIR, WORKER
from torchnet.errors import ClusterError, TorchnetError
from torchnet.k8s.client.api import MERGE_PATCH, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.exec import execute
from torchnet.k8s.client.kinds import JOB, JOBSET, POD, Kind, selector
from torchnet.k8s.client.watch import own_error
from torchnet.k8s.run.deletion import stop
from torchnet.k8s.run.pod_logs import LogReaders
from torchnet.k8s.run.run_info import RunInfo

_SECONDS = 20.0  # for all of them
_ENDED = (400, 404, 409)  # what is asked for a container that has ended meanwhile, or a pod that is gone
# All but the first process, if that is the agent: in a pod whose containers share their processes, or the node's, there
# would be others among them. Python is there, whatever else the image lacks.
_KILL = f"""\
import os, sys
if b"{CODE_DIR}/{AGENT_ZIP}" not in open("/proc/1/cmdline", "rb").read():
    sys.exit("the first process is not the agent")
os.kill(-1, 9)
"""


def hurry(door: ApiClient, namespace: str, pods: Collection[str]) -> str:
    """Kill the scripts of these pods, 20 seconds at most. Why one could not be, or ""; a pod that has ended is none."""
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    readers = LogReaders()
    for pod in pods:
        readers.take(lambda pod=pod: answers.put(_one(door, namespace, pod)))  # type: ignore[misc]
    until = time.monotonic() + _SECONDS
    why = ""
    for _ in pods:
        try:
            why = why or answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return why or f"no answer from some within {_SECONDS:g} s"
    return why


def _one(door: ApiClient, namespace: str, pod: str) -> str:
    try:
        execute(door, namespace, pod, WORKER, ("python3", "-c", _KILL))
    except ApiRefusal as error:
        return "" if error.status in _ENDED else str(error)
    except ClusterError as error:
        return str(error)
    except Exception as error:  # told, like all that keeps a worker from being ended
        return f"{pod}: {type(error).__name__}: {error}"
    return ""


_GONE = (404, 409)  # the object, or as it was known
_NOW = {"spec": {"activeDeadlineSeconds": 1}}  # the least that the API takes
_PAUSE = 0.3


def starts_again(door: ApiClient, facts: RunInfo) -> bool:
    """Whether it is a JobSet with restarts left: whatever ends in it is deleted and started again.

    Raises:
        ClusterError: it cannot be looked at.
    """
    if facts.kind is not JOBSET:
        return False
    path, call = JOBSET.path(facts.namespace, facts.name), JOBSET.call("get", facts.namespace, facts.name)
    try:
        found = door.call("GET", path, call)
    except ApiRefusal as error:
        if error.status == 404:
            return False
        raise
    limit = ((found.get("spec") or {}).get("failurePolicy") or {}).get("maxRestarts") or 0
    return int((found.get("status") or {}).get("restarts") or 0) < int(limit)


def halt(door: ApiClient, facts: RunInfo, patience: float) -> str:
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


def _pods(door: ApiClient, facts: RunInfo) -> list[dict[str, Any]]:
    query = {"labelSelector": selector(facts.run)}
    call = POD.call("list", facts.namespace)
    return list(door.call("GET", POD.path(facts.namespace), call, query=query).get("items") or ())


def _runs(pod: dict[str, Any]) -> bool:
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not ended and not pod["metadata"].get("deletionTimestamp")


def _end(door: ApiClient, namespace: str, pods: list[str]) -> str:
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    readers = LogReaders()
    for pod in pods:
        readers.take(lambda pod=pod: answers.put(_patch(door, POD, namespace, pod)))  # type: ignore[misc]
    told = [answers.get() for _ in pods]
    return next((why for why in told if why), "")


def _patch(door: ApiClient, kind: Kind, namespace: str, name: str) -> str:
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
    except ApiRefusal as error:
        return "" if error.status in _GONE else error.text
    except ClusterError as error:
        return error.text
    except Exception as error:  # told, like all that keeps a worker from being ended
        return f"{name}: {type(error).__name__}: {error}"
    return ""


class RunStop:
    """``notice`` and ``failed`` are called from the thread."""

    def __init__(
        self,
        door: ApiClient,
        facts: RunInfo,
        *,
        keep: bool,
        notice: Callable[[str], None],
        failed: Callable[[TorchnetError], None],
    ) -> None:
        self._door, self._facts = door, facts
        self._notice, self._failed = notice, failed
        self._done = threading.Event()
        self.keeps = keep
        """Whether the pods stay; of what starts again as long as it is there, they do not."""
        self.since: float | None = None
        """When it was begun (monotonic)."""

    def begin(self, grace: int | None, patience: float) -> None:
        """``grace``: seconds for pods that are deleted (None: their own); ``patience``: at most for those that stay."""
        self.since = time.monotonic()
        threading.Thread(target=self._work, args=(grace, patience), name="stop", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether what stays has been told to end, and that nothing is made any more; within so many seconds."""
        return not self.keeps or self.since is None or self._done.wait(seconds)

    def _work(self, grace: int | None, patience: float) -> None:
        door, facts = self._door, self._facts
        try:
            if self.keeps and starts_again(door, facts):
                self._notice(
                    "--keep: the JobSet has restarts left and would start again, so the run is removed"
                )
                self.keeps = False
            if not self.keeps:
                stop(door, facts.namespace, facts.run, grace=grace)
            elif why := halt(door, facts, patience):
                self._notice(f"--keep: {facts.run} {why}")
        except ClusterError as error:
            self._failed(error)
        except Exception as error:
            self._failed(own_error(f"the stop of {facts.run}", error))
        finally:
            self._done.set()
