"""Owner references: what the cluster's garbage collector deletes together with a run, also without a launcher.

A Job or a JobSet owns the run's other objects. Up to 16 plain pods own them together: the garbage collector deletes an
object once all of its owners are gone. With more, the run's first ConfigMap owns the pods and everything else. A list
of all pods was rejected: every object would hold it, and the garbage collector would go through it again for each
deleted pod. So was a list of some pods: the other objects would be deleted while the remaining pods still need them.

No owner is the controller, because an object can have only one, and none sets ``blockOwnerDeletion``: it matters only
for foreground deletion, and it needs permission to update the owner's finalizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchnet.k8s.client.api_client import MERGE_PATCH, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, is_permission_error
from torchnet.k8s.client.kinds import POD, WORKLOADS, Kind, kind_of

Object = dict[str, Any]
MOST_OWNERS = 16


def reference(kind: Kind, meta: Mapping[str, Any]) -> Object:
    """Return the reference to an owner, which exists already."""
    return {"apiVersion": kind.api, "kind": kind.name, "name": meta["name"], "uid": meta["uid"]}


def has_common_owner(objects: Sequence[Object]) -> bool:
    """Whether the first of ``objects`` owns the others, because there are too many plain pods to be owners."""
    return sum(kind_of(one) is POD for one in objects) > MOST_OWNERS


def owned_by(owner: Object, body: Object) -> Object:
    """Return ``body`` with ``owner``, as the server has it, as its only owner."""
    references = [reference(kind_of(owner), owner["metadata"])]
    return body | {"metadata": body["metadata"] | {"ownerReferences": references}}


def set_owners(client: ApiClient, results: Sequence[Object]) -> None:
    """Make the workload own the run's other objects, so that deleting it deletes all of them.

    Without permission to patch the objects, they stay without owners; the run's label still finds all of them.

    Raises:
        ClusterError: the server cannot be reached, or rejects a patch for another reason.
    """
    workloads = [body for body in results if kind_of(body) in WORKLOADS]
    if not workloads or has_common_owner(results):  # the common owner was set at the creation
        return
    references = [reference(kind_of(one), one["metadata"]) for one in workloads]
    for body in results:
        kind, meta = kind_of(body), body["metadata"]
        if kind not in WORKLOADS and not replace_owners(client, kind, meta, references):
            return


def replace_owners(
    client: ApiClient, kind: Kind, meta: Mapping[str, Any], references: Sequence[Object]
) -> bool:
    """Replace an object's owners; return False if this user may not patch it. An object that is gone is no error.

    Raises:
        ClusterError: the server cannot be reached, or rejects the patch for another reason.
    """
    namespace, name = meta["namespace"], meta["name"]
    try:
        client.call(
            "PATCH",
            kind.path(namespace, name),
            kind.call("patch", namespace, name),
            query={"fieldManager": "torchnet"},
            body={"metadata": {"ownerReferences": list(references)}},
            content=MERGE_PATCH,
        )
    except ApiRefusal as error:
        if is_permission_error(error.status, error.message):
            return False
        if error.status != 404:
            raise
    return True
