"""Pods and workloads as the API server gives them: shapes recorded from a 1.34 cluster, cut to what is read."""

from __future__ import annotations

import json
from typing import Any

from torchnet.k8s.client.kinds import JOB, JOBSET, POD
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus

RUN, NAMESPACE = "train-1a2b3c", "ml"


def facts(nnodes: int = 4, *, jobset: bool = False, pods: bool = False, nproc: int = 1) -> RunInfo:
    kind = POD if pods else JOBSET if jobset else JOB
    return RunInfo(RUN, NAMESPACE, kind, RUN, nnodes, nproc, 1_700_000_000.0)


def message(rank: int = 0, code: int = 0, **more: Any) -> str:
    """An agent's termination message."""
    body = {
        "torchnet": 1,
        "node": f"{RUN}-{rank}",
        "node_rank": rank,
        "phase": "work",
        "started": more.get("phase") != "prepare",
        "code": code,
        "failure": None,
        "receipt": None,
        "job": None,
    }
    return json.dumps(body | more)


def failure(kind: str = "script", code: int = 42, at: float = 1000.0, **more: Any) -> dict[str, Any]:
    text = f"rank 3 on {RUN}-3 exited with code {code}"
    return {"kind": kind, "text": text, "code": code, "rank": 3, "node": f"{RUN}-3", "at": at} | more


LABELS = {"torchnet.alt/run": RUN, "app.kubernetes.io/managed-by": "torchnet"}


def pod(
    rank: int = 0,
    *,
    uid: str = "",
    version: int = 1,
    phase: str = "Pending",
    prepare: dict[str, Any] | None = None,
    worker: dict[str, Any] | None = None,
    started: bool = True,
    made: str = "2026-01-01T00:00:00Z",
    attempt: int | None = None,
    scheduled: dict[str, Any] | None = None,
    **status: Any,
) -> dict[str, Any]:
    labels = LABELS | {"batch.kubernetes.io/job-completion-index": str(rank)}
    if attempt is not None:
        labels["jobset.sigs.k8s.io/restart-attempt"] = str(attempt)
    condition = {"type": "PodScheduled", "status": "True"} | (scheduled or {})
    body: dict[str, Any] = {"phase": phase, "conditions": [condition, *status.pop("conditions", [])]} | status
    if prepare is not None:
        body["initContainerStatuses"] = [{"name": "prepare", "state": prepare}]
    if worker is not None:
        body["containerStatuses"] = [
            {"name": "worker", "state": worker, "started": started and "running" in worker}
        ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{RUN}-{rank}-{uid or 'abcde'}",
            "namespace": NAMESPACE,
            "uid": uid or f"uid-{rank}",
            "resourceVersion": str(version),
            "creationTimestamp": made,
            "labels": labels,
        },
        "spec": {"nodeName": "node1"},
        "status": body,
    }


def job(nnodes: int = 4) -> dict[str, Any]:
    """The workload of such a run."""
    about = json.dumps({"nnodes": nnodes, "nproc_per_node": 1, "network": "multus-status"})
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {}, "status": {}} | {
        "metadata": labelled(RUN) | {"annotations": {"torchnet.alt/spec": about}}
    }


def labelled(name: str) -> dict[str, Any]:
    """Metadata of one of the run's objects."""
    return {"name": name, "namespace": NAMESPACE, "labels": dict(LABELS)}


def waiting(reason: str, text: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": text} if text else {"reason": reason}}


def running(at: str = "2026-01-01T00:00:05Z") -> dict[str, Any]:
    return {"running": {"startedAt": at}}


def terminated(code: int, text: str | None = None, reason: str = "Error") -> dict[str, Any]:
    state = {
        "exitCode": code,
        "reason": reason if code else "Completed",
        "startedAt": "2026-01-01T00:00:05Z",
        "finishedAt": "2026-01-01T00:00:25Z",
    }
    return {"terminated": state | ({"message": text} if text is not None else {})}


def ended(rank: int, code: int = 0, text: str | None = None, **more: Any) -> dict[str, Any]:
    """A pod whose worker has ended."""
    phase = "Failed" if code else "Succeeded"
    done = terminated(code, message(rank, code) if text is None else text)
    return pod(rank, phase=phase, prepare=terminated(0), worker=done, **more)


def workers(*pods: dict[str, Any], nnodes: int = 4) -> dict[int, WorkerStatus]:
    """What a launcher makes of a list of the run's pods."""
    gang = WorkerSet(nnodes)
    gang.relist(pods)
    return gang.workers()
