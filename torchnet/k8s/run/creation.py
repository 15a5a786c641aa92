"""Create a run's objects: a dry run on the server, then each object in order, then the owner references.

Objects are created by POST, not by server-side apply: apply would merge into an existing run of the same name, and the
server's response AlreadyExists is free of races. The field manager is ``torchnet`` in every write.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError, NetworkError, UsageError
from torchnet.k8s.client.api import MERGE_PATCH, ApiClient, after_lost_answer
from torchnet.k8s.client.api_errors import ApiRefusal, is_rights
from torchnet.k8s.client.kinds import NAD, POD, WORKLOADS, kind_of
from torchnet.network.attachment import NetworkAttachment
from torchnet.text import printable

Object = dict[str, Any]
_OWNERS = 16
_QUERY = {"fieldManager": "torchnet", "fieldValidation": "Strict"}


def check(
    door: ApiClient, objects: Sequence[Object], pod: Object, attachments: Sequence[NetworkAttachment]
) -> None:
    """Check by a dry run that the server accepts all ``objects`` and one ``pod`` of the workload.

    Args:
        attachments: Those of the pods.

    Raises:
        UsageError: a run of this name, or an object of one, exists already.
        NetworkError: a network attachment that the pods name does not exist.
        ClusterError: the server cannot be reached, or rejects an object; its text names the object.
    """
    _taken(door, objects)
    for body in objects:
        if kind_of(body) is not POD:  # one pod, tried below, stands for all of them
            _post(door, body, dry=True)
    # After the dry runs: if the namespace is missing, a missing attachment would be reported instead.
    _attachments(door, attachments)
    own = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"}
    tried = copy.deepcopy(pod)
    if tried["spec"].get("serviceAccountName") in own:
        # The account does not exist yet, and the server rejects a pod whose account is missing.
        tried["spec"].pop("serviceAccountName")
    tried["metadata"]["name"] = f"{tried['metadata']['name'][:55]}-check"
    _post(door, tried, dry=True)


def create(
    door: ApiClient,
    objects: Sequence[Object],
    made: Callable[[Object], None],
    stopped: Callable[[], bool] = lambda: False,
) -> list[Object]:
    """Create ``objects`` in order, until ``stopped()`` is true.

    Args:
        made: called after each creation with the server's version of the object.
        stopped: called before each creation.

    Returns:
        The server's versions of the created objects.

    Raises:
        UsageError: a run of this name, or an object of one, exists already.
        ClusterError: the server rejects an object, or cannot be reached; it may have created the object all the same.
    """
    results = []
    for body in objects:
        if stopped():
            break
        answer = _post(door, body, dry=False)
        results.append(answer)
        made(answer)
    return results


def own(door: ApiClient, results: Sequence[Object]) -> None:
    """Make the workload own the run's other objects, so that deleting it deletes all of them.

    Each plain pod is an owner, and the other objects are deleted with the last pod: the garbage collector deletes an
    object once all of its owners are gone. No owner is the controller, because an object can have only one, and none
    sets ``blockOwnerDeletion``: it matters only for foreground deletion, and it needs permission to update the owner's
    finalizers. With more than 16 pods there are no owner references: every object would hold the whole list, and the
    garbage collector would go through it again for each deleted pod. References to some of the pods were rejected:
    the other objects would be deleted while the remaining pods still need them.

    Without permission to patch the objects, they stay without owners; the run's label still finds all of them.

    Raises:
        ClusterError: the server cannot be reached, or rejects a patch for another reason.
    """
    workloads = [body for body in results if kind_of(body) in WORKLOADS]
    if not workloads or len(workloads) > _OWNERS:
        return
    references = [
        {"apiVersion": one["apiVersion"], "kind": one["kind"]}
        | {field: one["metadata"][field] for field in ("name", "uid")}
        for one in workloads
    ]
    for body in results:
        if kind_of(body) in WORKLOADS:
            continue
        kind, meta = kind_of(body), body["metadata"]
        try:
            door.call(
                "PATCH",
                kind.path(meta["namespace"], meta["name"]),
                kind.call("patch", meta["namespace"], meta["name"]),
                query={"fieldManager": "torchnet"},
                body={"metadata": {"ownerReferences": references}},
                content=MERGE_PATCH,
            )
        except ApiRefusal as error:
            if error.status == 404:
                continue  # the run has been deleted meanwhile
            if is_rights(error.status, error.said):
                return
            raise


def is_taken(error: BaseException) -> bool:
    """Whether an error of :func:`create` means that an object of another launch has the name."""
    if isinstance(error, ApiRefusal):
        # The reason Conflict has nothing to do with names: a quota, for example, causes it.
        return error.status == 409 and error.reason != "Conflict"
    return isinstance(error, UsageError)


def _taken(door: ApiClient, objects: Sequence[Object]) -> None:
    for body in objects:
        kind, meta = kind_of(body), body["metadata"]
        if kind not in WORKLOADS:
            continue
        namespace, name = meta["namespace"], meta["name"]
        try:
            found = door.call("GET", kind.path(namespace, name), kind.call("get", namespace, name))
        except ApiRefusal as error:
            if error.status == 404 or is_rights(error.status, error.said):
                return
            raise
        raise taken(kind.name, namespace, name, found)


def taken(kind: str, namespace: str, name: str, found: Mapping[str, Any]) -> UsageError:
    """The error for a workload name that is in use."""
    run = _run_of(found)
    what = f"the run {run}" if run else f"{kind} {name}, which is no run of torchnet's,"
    status = found.get("status") or {}
    state = next(
        (one["type"].lower() for one in status.get("conditions") or () if one.get("status") == "True"),
        str(status.get("phase") or "running").lower(),
    )
    fix = f"torchnet attach {run} -n {namespace}, or torchnet down {run} -n {namespace}" if run else ""
    return UsageError(
        f"{what} exists in namespace {namespace} ({printable(state, 40)})", fix=fix or "another --run-id"
    )


def _post(door: ApiClient, body: Object, *, dry: bool) -> Object:
    kind, meta = kind_of(body), body["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    query = {**_QUERY, "dryRun": "All"} if dry else _QUERY
    try:
        return door.call(
            "POST", kind.path(namespace), kind.call("create", namespace, name), query=query, body=body
        )
    except ApiRefusal as error:
        if dry and kind.name == "RoleBinding" and error.status == 404:
            # The Role does not exist yet, and unless the user may bind it without having its rights, the server reads
            # it. Such a binding cannot be tried.
            return body
        if is_taken(error):
            found = _there(door, body)
            if after_lost_answer(error) and _same(found, body):
                return found
            # An object that cannot be read is taken for one of this run: no other tool creates such names.
            raise (taken if kind in WORKLOADS else _left_over)(
                kind.name, namespace, name, found or body
            ) from None
        if error.status == 404 and "." in kind.resource and "namespaces" not in error.said:
            raise ClusterError(
                f"the cluster has no {kind.resource} ({kind.api}), which {kind.name} {name} is one of: {error.said}",
                fix="kubectl api-resources shows what it has",
            ) from None
        raise


def _left_over(kind: str, namespace: str, name: str, found: Mapping[str, Any]) -> UsageError:
    """The error for an object name, not a workload's, that is in use; the run it belongs to may be gone."""
    run = _run_of(found)
    if not run:
        text = f"{kind} {name}, which is none of torchnet's, exists in namespace {namespace}"
        return UsageError(text, fix="another --run-id")
    text = f"{kind} {name} of the run {run} exists in namespace {namespace}"
    return UsageError(text, fix=f"torchnet down {run} -n {namespace}")


def _run_of(found: Mapping[str, Any]) -> str | None:
    return ((found.get("metadata") or {}).get("labels") or {}).get(RUN_LABEL)


def _there(door: ApiClient, body: Object) -> Object:
    """The existing object of this name, as the server has it; {} if it is gone by now or cannot be read."""
    kind, namespace, name = kind_of(body), body["metadata"]["namespace"], body["metadata"]["name"]
    try:
        return door.call("GET", kind.path(namespace, name), kind.call("get", namespace, name))
    except ClusterError:
        return {}


def _same(found: Object, body: Object) -> bool:
    """Whether ``found`` can result from creating ``body``: an earlier run's leftovers have other contents."""
    there, meta = found.get("metadata") or {}, body["metadata"]
    if not there or there.get("deletionTimestamp"):
        return False
    signs = all(
        (meta.get(field) or {}).items() <= (there.get(field) or {}).items()
        for field in ("labels", "annotations")
    )
    return signs and all(found.get(field) == body.get(field) for field in ("data", "binaryData"))


def _attachments(door: ApiClient, attachments: Sequence[NetworkAttachment]) -> None:
    """Reject network attachments that do not exist: every pod would hang before it starts."""
    for where, name in dict.fromkeys((one.namespace, one.name) for one in attachments):
        try:
            door.call("GET", NAD.path(where, name), NAD.call("get", where, name), patience=10.0)
        except ApiRefusal as error:
            if error.status == 404:
                raise missing(door, where, name) from None
            if not is_rights(error.status, error.said):
                raise
            # Without permission to read attachments, only the CNI plugin will report a missing one.


def missing(door: ApiClient, namespace: str, name: str) -> NetworkError:
    """The error for a missing network attachment; it lists those that exist in the namespace."""
    try:
        listed = door.call("GET", NAD.path(namespace), NAD.call("list", namespace), patience=5.0)
        known = [str(item["metadata"]["name"]) for item in listed.get("items") or ()]
    except ApiRefusal as error:
        if error.status == 404:
            return NetworkError(
                "the cluster knows no network attachments: Multus is not installed",
                fix="torchnet manifests multus | kubectl apply -f -",
            )
        known = []
    except ClusterError:
        known = []
    there = f"; it has {', '.join(printable(one) for one in known[:10])}" if known else ""
    return NetworkError(
        f"there is no network attachment {name} in namespace {namespace}{there}",
        fix="--network NAMESPACE/NAME, or torchnet manifests backend-network | kubectl apply -f -",
    )
