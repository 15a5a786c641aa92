"""Stop a run, in a thread: its workload and pods are deleted, or ended in place (``--keep``).

With ``--keep``, each pod gets activeDeadlineSeconds: once they have passed, its kubelet ends it, and the pod stays
(ActiveDeadlineHandler in pkg/kubelet/active_deadline.go). A Job's own deadline, or its suspension, would delete running
pods. It is therefore set last, when no pod runs, so that the Job creates no replacement later. The Job of a JobSet
belongs to the JobSet and is not changed: such a run is kept if the end of its pods ends the JobSet, and removed if not.

A run that its queue has not admitted is removed, too. Otherwise its queue would admit it later, perhaps by preempting
another run, only for its pods to end after a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from torchnet.errors import ClusterError, TorchnetError
from torchnet.k8s.client.api_client import MERGE_PATCH, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.backoff import Backoff
from torchnet.k8s.client.kinds import JOB, JOBSET, POD, Kind
from torchnet.k8s.client.parallel import parallel
from torchnet.k8s.client.pod_watch import PodWatch
from torchnet.k8s.client.watch import internal_error
from torchnet.k8s.run.deletion import stop
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.suspension import suspension, terminal

_GONE = (404, 409)  # HTTP statuses: the object is gone, or has changed
_NOW = {"spec": {"activeDeadlineSeconds": 1}}  # the smallest value that the API accepts
_PAUSE = 0.3  # seconds between two looks
_JOBSET_SECONDS = 5.0  # for the controllers to fail the Job and then the JobSet, once the last pod has ended


def _jobset(client: ApiClient, info: RunInfo) -> dict[str, Any]:
    """The run's JobSet; {} if it is gone.

    Raises:
        ClusterError: the JobSet cannot be read.
    """
    path, call = JOBSET.path(info.namespace, info.name), JOBSET.call("get", info.namespace, info.name)
    try:
        found: dict[str, Any] = client.call("GET", path, call)
    except ApiRefusal as error:
        if error.status == 404:
            return {}
        raise
    return found


def _restarts_left(jobset: dict[str, Any]) -> bool:
    limit = ((jobset.get("spec") or {}).get("failurePolicy") or {}).get("maxRestarts") or 0
    return int((jobset.get("status") or {}).get("restarts") or 0) < int(limit)


def _wait_for_jobset_end(client: ApiClient, info: RunInfo) -> bool:
    """Whether the JobSet ends, so that its Job creates no more pods; waits up to 5 s for that.

    It does not end if a worker has no pod, or was stopped before its script started: the Job then creates another pod.
    """
    until, backoff = time.monotonic() + _JOBSET_SECONDS, Backoff(_PAUSE, _JOBSET_SECONDS)
    while True:
        found = _jobset(client, info)
        if not found or terminal(found):
            return True
        if time.monotonic() > until or client.stop.wait(min(backoff.next(), until - time.monotonic() + 0.1)):
            return False


def is_queued(client: ApiClient, info: RunInfo) -> bool:
    """Whether this Job is suspended, or all of these plain pods have scheduling gates; False if that cannot be read."""
    query = {"labelSelector": info.selector} if info.kind is POD else {}
    name, verb = ("", "list") if info.kind is POD else (info.name, "get")
    try:
        found = client.call(
            "GET",
            info.kind.path(info.namespace, name),
            info.kind.call(verb, info.namespace, name),
            query=query,
        )
    except ClusterError:
        return False  # the requests that end the run report it
    if info.kind is not POD:
        return suspension(found).active
    pods = found.get("items") or ()
    return bool(pods) and all((pod.get("spec") or {}).get("schedulingGates") for pod in pods)


def end_in_place(client: ApiClient, info: RunInfo, patience: float) -> str:
    """End the workers within ``patience`` seconds, and keep their objects.

    A suspended Job is left as it is.

    Returns:
        What could not be done, for a message; "" if all was.

    Raises:
        ClusterError: the API server cannot be reached, or the pods may not be listed.
    """
    until = time.monotonic() + patience
    ended_uids: set[str] = set()
    why = ""
    with PodWatch(client, info.namespace, info.selector) as pods:
        while not pods.is_listed and not client.stop.is_set():
            pods.wait(_PAUSE)
        while True:
            running = [pod for pod in pods.bodies().values() if _is_running(pod)]
            new = [pod for pod in running if pod["metadata"]["uid"] not in ended_uids]
            ended_uids |= {pod["metadata"]["uid"] for pod in new}
            why = _end_pods(client, info.namespace, [str(pod["metadata"]["name"]) for pod in new]) or why
            # A pod without a node has nothing to keep, so it is not waited for.
            on_nodes = [pod for pod in running if (pod.get("spec") or {}).get("nodeName")]
            if why or not on_nodes or time.monotonic() > until or client.stop.is_set():
                break
            pods.wait(_PAUSE)
    if info.kind is POD:
        return f"keeps running: {why}" if why else ""
    if info.kind is JOBSET or is_queued(client, info):
        return why
    problem = _patch(client, JOB, info.namespace, info.pod_creator)
    if problem:
        return f"may still be running: {problem}"
    return f"cannot stop its pods in place, so they are deleted: {why}" if why else ""


def _is_running(pod: dict[str, Any]) -> bool:
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not ended and not pod["metadata"].get("deletionTimestamp")


def _end_pods(client: ApiClient, namespace: str, pods: list[str]) -> str:
    return next(filter(None, parallel(lambda pod: _patch(client, POD, namespace, pod), pods)), "")


def _patch(client: ApiClient, kind: Kind, namespace: str, name: str) -> str:
    """Set the deadline of one object to 1 s; return why that failed, or ""."""
    try:
        client.call(
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
    except Exception as error:  # reported, like every other reason why a worker could not be ended
        return f"{name}: {type(error).__name__}: {error}"
    return ""


class RunStop:
    """The stop of one run, in a thread.

    Args:
        keep: end the pods in place instead of deleting them.
        notice: receives warnings, from the thread.
        on_error: receives the error that ended the stop, from the thread.
    """

    def __init__(
        self,
        client: ApiClient,
        info: RunInfo,
        *,
        keep: bool,
        notice: Callable[[str], None],
        on_error: Callable[[TorchnetError], None],
    ) -> None:
        self._client, self._info = client, info
        self._notice, self._on_error = notice, on_error
        self._done = threading.Event()
        self._hurries = threading.Event()
        self._complete = False
        self.keeps = keep
        """Whether the pods stay. Set to False for a JobSet that would create pods again."""
        self.since: float | None = None
        """Monotonic time at which the stop began; None before."""

    def begin(self, grace: int | None, patience: float) -> None:
        """Begin the stop, and return at once.

        Args:
            grace: grace period in seconds of pods that are deleted; None keeps their own.
            patience: how many seconds to wait for the end of pods that stay.
        """
        self.since = time.monotonic()
        threading.Thread(target=self._work, args=(grace, patience), name="stop", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for a stop with ``--keep``; return whether no such stop is in progress."""
        return not self.keeps or self.since is None or self._done.wait(seconds)

    def progress(self, seconds: float) -> str:
        """Hurry, and say what is known of the stop after up to ``seconds``: the launcher leaves before its end."""
        self._hurries.set()
        if not self._done.wait(seconds):
            state = (
                "its pods have not terminated yet"
                if self.keeps
                else "the API server has not confirmed the deletion"
            )
            return f"{state}; it may still be running"
        if not self._complete:
            return "stopping it failed; it may still be running"
        return "its pods are terminating and are kept" if self.keeps else "it is being deleted"

    def _work(self, grace: int | None, patience: float) -> None:
        try:
            self._complete = self._stop(grace, patience)
        except ClusterError as error:
            self._on_error(error)
        except Exception as error:
            self._on_error(internal_error(f"the stop of {self._info.run}", error))
        finally:
            self._done.set()

    def _stop(self, grace: int | None, patience: float) -> bool:
        """Stop the run; return whether the cluster has accepted all of it."""
        client, info = self._client, self._info
        if self.keeps:
            why, removed = self._keep(patience)
            if why:
                self._notice(f"--keep: {why}")
            if not removed:
                return not why
            self.keeps = False
        protects = lambda: not self._hurries.is_set()  # noqa: E731
        return not stop(client, info.namespace, info.run, grace=grace, protects=protects).problems

    def _keep(self, patience: float) -> tuple[str, bool]:
        """End the pods in place; return what went wrong (or ""), and whether the run must be removed therefore."""
        client, info = self._client, self._info
        if info.kind is not JOBSET:
            gated = info.kind is POD and is_queued(client, info)
            why = "" if gated else end_in_place(client, info, patience)
            if gated or is_queued(client, info):  # perhaps suspended while its pods ended
                return "the run waits for its queue and would start later, so it is removed", True
            return f"{info.run} {why}" if why else "", False
        if _restarts_left(_jobset(client, info)):
            return "the JobSet has restarts left and would restart its workers, so the run is removed", True
        why = end_in_place(client, info, patience)
        if not why and _wait_for_jobset_end(client, info):
            return "", False
        cause = f": {why}" if why else ", and would create pods again"
        return f"the JobSet has not finished{cause}, so the run is removed", True
