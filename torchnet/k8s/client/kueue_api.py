"""Kueue's API: the version that the cluster serves, and the Workload that Kueue keeps for a job.

Kueue's roles are not part of the built-in roles `view`, `edit` and `admin`, so that many users may not read Workloads.
"""

from __future__ import annotations

from typing import Any

from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiCall, ApiRefusal
from torchnet.k8s.client.kinds import Kind

GROUP = "kueue.x-k8s.io"
JOB_UID_LABEL = f"{GROUP}/job-uid"
# Seconds for which a read is retried: while Kueue's controller is down, the API server cannot convert its objects.
_PATIENCE = 2.0
_PAGE = 500


def served_version(client: ApiClient) -> str:
    """Return the preferred version of Kueue's API; "" if the cluster does not have Kueue.

    Every user may read the API discovery.

    Raises:
        ClusterError: the API server cannot be reached, or refuses the request.
    """
    try:
        found = client.call("GET", f"/apis/{GROUP}", ApiCall("get", GROUP))
    except ApiRefusal as error:
        if error.status == 404:
            return ""
        raise
    return str((found.get("preferredVersion") or {}).get("version") or "")


def workload_kind(version: str) -> Kind:
    """Return the kind Workload in this version of the API."""
    return Kind(f"{GROUP}/{version}", "Workload", "workloads")


def local_queue_kind(version: str) -> Kind:
    """Return the kind LocalQueue in this version of the API."""
    return Kind(f"{GROUP}/{version}", "LocalQueue", "localqueues")


def priority_kind(version: str) -> Kind:
    """Return the kind WorkloadPriorityClass, whose objects are in no namespace, in this version of the API."""
    return Kind(f"{GROUP}/{version}", "WorkloadPriorityClass", "workloadpriorityclasses")


def list_workloads(client: ApiClient, version: str, namespace: str, uid: str = "") -> list[dict[str, Any]]:
    """Return the Workloads of a namespace, read in pages, or those of the Job or JobSet with this UID.

    Raises:
        ClusterError: the API server cannot be reached, or refuses the request.
    """
    kind = workload_kind(version)
    query: dict[str, object] = {"labelSelector": f"{JOB_UID_LABEL}={uid}"} if uid else {"limit": _PAGE}
    found: list[dict[str, Any]] = []
    while True:
        answer = client.call(
            "GET", kind.path(namespace), kind.call("list", namespace), query=query, patience=_PATIENCE
        )
        found += answer.get("items") or ()
        rest = str((answer.get("metadata") or {}).get("continue") or "")
        if not rest:
            return found
        query |= {"continue": rest}


def get_workload(client: ApiClient, version: str, namespace: str, name: str) -> dict[str, Any] | None:
    """Return a Workload by its name; None if there is none.

    Raises:
        ClusterError: the API server cannot be reached, or refuses the request.
    """
    kind = workload_kind(version)
    try:
        found: dict[str, Any] = client.call(
            "GET", kind.path(namespace, name), kind.call("get", namespace, name), patience=_PATIENCE
        )
    except ApiRefusal as error:
        if error.status == 404:
            return None
        raise
    return found
