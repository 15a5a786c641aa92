"""From objects to a running job: tried on the server first, then made in order, then owned by the workload.

Made by POST, not by server-side apply: apply would merge into a run that has the same name already, and the server's
answer "AlreadyExists" is free of races. ``torchnet`` is the field manager in any case.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchnet import constants
from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError, NetworkError, UsageError
from torchnet.k8s.client.api import MERGE_PATCH, ApiClient, after_lost_answer
from torchnet.k8s.client.api_errors import ApiRefusal, is_rights
from torchnet.k8s.client.kinds import NAD, POD, WORKLOADS, kind_of
from torchnet.text import printable

Object = dict[str, Any]
_OWNERS = 16
_QUERY = {"fieldManager": "torchnet", "fieldValidation": "Strict"}


def check(door: ApiClient, objects: Sequence[Object], pod: Object) -> None:
    """Ask the server, without making anything, whether all ``objects`` and one ``pod`` of the workload would be taken.

    Raises:
        UsageError: there is a run of this name.
        NetworkError: an attachment that the pods name does not exist.
        ClusterError: the server refuses one; its own words and the object's name are in the text.
    """
    _taken(door, objects)
    for body in objects:
        if kind_of(body) is not POD:  # one pod stands for all of them
            _post(door, body, dry=True)
    _attachments(door, pod)  # in a namespace that is not there, that alone would be told of
    own = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"}
    tried = copy.deepcopy(pod)
    if tried["spec"].get("serviceAccountName") in own:
        # It does not exist yet, and a pod with an account that does not is refused for that alone.
        tried["spec"].pop("serviceAccountName")
    tried["metadata"]["name"] = f"{tried['metadata']['name'][:55]}-check"
    _post(door, tried, dry=True)


def create(
    door: ApiClient,
    objects: Sequence[Object],
    made: Callable[[Object], None],
    stopped: Callable[[], bool] = lambda: False,
) -> list[Object]:
    """Make them in order, until ``stopped()``; ``made`` is called after each. The server's own versions of them.

    Raises:
        UsageError: there is a run of this name.
        ClusterError: the server refuses one, or cannot be reached; it may have made it all the same then.
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
    """Make the workload the owner of all that was made before it: whoever deletes the workload deletes all.

    Of plain pods each is an owner, and the rest goes with the last of them (the garbage collector deletes an object
    when none of its owners is there any more). None of them is the controller, which only one could be, and none has
    ``blockOwnerDeletion``: it matters to a deletion in the foreground alone, and asks for the right to the owner's
    finalizers. More than 16 pods own nothing: the list would be in every object, and is looked through anew for each
    pod that goes. If some of them were the owners, the rest would go while other pods still need it.

    Where the rights for that are missing, the run's label still finds everything.

    Raises:
        ClusterError: the server cannot be reached, or refuses for another reason.
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
                continue  # the run has been removed meanwhile
            if is_rights(error.status, error.said):
                return
            raise


def is_taken(error: BaseException) -> bool:
    """Whether what :func:`create` raised means that an object of this name is there already: somebody else's."""
    if isinstance(error, ApiRefusal):
        # A quota's Conflict, say, is no matter of names.
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
    """The name is in use."""
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
            # Its Role does not exist yet: for whoever may not bind any role, that cannot be tried.
            return body
        if is_taken(error):
            found = _there(door, body)
            if after_lost_answer(error) and _same(found, body):
                return found
            # Who may not read it has its name for a sign: no other tool gives such names.
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
    """The name of something that only belongs to a run is in use, and the run itself may be gone."""
    run = _run_of(found)
    if not run:
        text = f"{kind} {name}, which is none of torchnet's, exists in namespace {namespace}"
        return UsageError(text, fix="another --run-id")
    text = f"{kind} {name} of the run {run} exists in namespace {namespace}"
    return UsageError(text, fix=f"torchnet down {run} -n {namespace}")


def _run_of(found: Mapping[str, Any]) -> str | None:
    return ((found.get("metadata") or {}).get("labels") or {}).get(RUN_LABEL)


def _there(door: ApiClient, body: Object) -> Object:
    """The object as the server has it; {} where it has gone, or cannot be read: that it was there is known."""
    kind, namespace, name = kind_of(body), body["metadata"]["namespace"], body["metadata"]["name"]
    try:
        return door.call("GET", kind.path(namespace, name), kind.call("get", namespace, name))
    except ClusterError:
        return {}


def _same(found: Object, body: Object) -> bool:
    """Whether ``found`` can be what ``body`` made: what an earlier run of the name left has other contents."""
    there, meta = found.get("metadata") or {}, body["metadata"]
    if not there or there.get("deletionTimestamp"):
        return False
    signs = all(
        (meta.get(field) or {}).items() <= (there.get(field) or {}).items()
        for field in ("labels", "annotations")
    )
    return signs and all(found.get(field) == body.get(field) for field in ("data", "binaryData"))


def _attachments(door: ApiClient, pod: Object) -> None:
    """Refuse attachments that do not exist: with them, each pod would hang before its start."""
    namespace = pod["metadata"]["namespace"]
    for where, name in attachments(pod["metadata"], namespace):
        try:
            door.call("GET", NAD.path(where, name), NAD.call("get", where, name), patience=10.0)
        except ApiRefusal as error:
            if error.status == 404:
                raise missing(door, where, name) from None
            if not is_rights(error.status, error.said):
                raise
            # Who may not read them has to wait for the CNI's own words.


def missing(door: ApiClient, namespace: str, name: str) -> NetworkError:
    """There is no such attachment: the error, with those that are there."""
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


def attachments(metadata: Mapping[str, Any], namespace: str) -> list[tuple[str, str]]:
    """(namespace, name) of the attachments that a pod's annotation names, each once."""
    text = str((metadata.get("annotations") or {}).get(constants.NETWORKS_ANNOTATION) or "")
    found: list[tuple[str, str]] = []
    if text.lstrip().startswith("["):
        for entry in json.loads(text):
            found.append((str(entry.get("namespace") or namespace), str(entry["name"])))
    else:
        for part in filter(None, (one.strip() for one in text.split(","))):
            where, slash, name = part.partition("@")[0].rpartition("/")
            found.append((where if slash else namespace, name))
    return list(dict.fromkeys(found))
