"""Create a run's objects: a dry run on the server, then each object in order, and many plain pods at the same time.

Objects are created by POST, not by server-side apply: apply would merge into an existing run of the same name, and the
server's response AlreadyExists is free of races. The field manager is ``torchnet`` in every write.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchnet.constants import PRIORITY_LABEL, QUEUE_LABEL
from torchnet.errors import ClusterError, NetworkError, UsageError
from torchnet.k8s.attachments.launch_check import check_launch
from torchnet.k8s.client.api_client import ApiClient, after_lost_answer
from torchnet.k8s.client.api_errors import ApiRefusal, is_permission_error
from torchnet.k8s.client.kinds import NAD, POD, WORKLOADS, Kind, kind_of, run_of
from torchnet.k8s.client.kueue_api import local_queue_kind, priority_kind, served_version
from torchnet.k8s.client.parallel import parallel
from torchnet.k8s.run.owner_references import has_common_owner, owned_by
from torchnet.network.attachment import NetworkAttachment
from torchnet.text import printable

Object = dict[str, Any]
_QUERY = {"fieldManager": "torchnet", "fieldValidation": "Strict"}


def check(
    client: ApiClient,
    objects: Sequence[Object],
    pod: Object,
    attachments: Sequence[NetworkAttachment],
    nnodes: int = 1,
) -> list[str]:
    """Check by a dry run that the server accepts all ``objects`` and one ``pod`` of the workload.

    Args:
        attachments: Those of the pods.
        nnodes: How many pods the workload has.

    Returns:
        A line for each thing that this user may not read, and that was not checked; for each fault of an attachment
        that does not rule out that the run works; and one if the assignment of the addresses will take minutes.

    Raises:
        UsageError: a run of this name, or an object of one, exists already; its queue does not exist; or Kueue would
            put it into a queue that was not asked for.
        NetworkError: a network attachment that the pods name does not exist, or gives no pod a usable interface; or it
            has fewer free addresses than the workers need.
        ClusterError: the server cannot be reached, or rejects an object; its text names the object.
    """
    _check_name(client, objects)
    _check_queue(client, pod["metadata"]["namespace"], objects)
    for body in objects:
        if kind_of(body) is not POD:  # one pod, tried below, stands for all of them
            _reject_default_queue(objects, _post(client, body, dry=True))
    # After the dry runs: if the namespace is missing, a missing attachment would be reported instead.
    lines, known = _check_attachments(client, attachments)
    lines += check_launch(client, objects, pod, attachments, nnodes, known)
    candidate = copy.deepcopy(pod)
    candidate["metadata"]["name"] = f"{candidate['metadata']['name'][:55]}-check"
    _reject_default_queue(objects, _post(client, candidate, dry=True))
    return lines


def check_pod(client: ApiClient, pod: Object) -> None:
    """Check by a dry run that the server accepts a pod that is no run's.

    Raises:
        UsageError: Kueue would put the pod into a queue that was not asked for.
        ClusterError: the server cannot be reached, or rejects the pod.
    """
    _reject_default_queue([pod], _post(client, pod, dry=True))


def create(
    client: ApiClient,
    objects: Sequence[Object],
    on_created: Callable[[Object], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Object]:
    """Create ``objects`` in order, until ``should_stop()`` is true.

    All plain pods but the first one are created at the same time, by several threads: one after another, a thousand
    would take a minute over a slow link, and the first ones would wait for the last. The first one is created alone,
    so that a name that is in use or a quota is met by a single request.

    Args:
        on_created: called after each creation with the server's version of the object, also by several threads.
        should_stop: called before each creation.

    Returns:
        The server's versions of the created objects, in their order.

    Raises:
        UsageError: a run of this name, or an object of one, exists already.
        ClusterError: the server rejects an object, or cannot be reached; it may have created the object all the same.
    """
    common = has_common_owner(objects)
    owner: Object | None = None

    def create_one(body: Object) -> Object | None:
        if should_stop():
            return None
        answer = _post(client, owned_by(owner, body) if common and owner else body, dry=False)
        on_created(answer)
        return answer

    first_pod = next((index for index, body in enumerate(objects) if kind_of(body) is POD), len(objects))
    results: list[Object] = []
    for body in objects[: first_pod + 1]:
        answer = create_one(body)
        if answer is None:
            return results
        owner = owner or answer
        results.append(answer)
    # If one fails, no further ones are begun. That a name is in use counts most: it rules out a removal by label.
    answers = parallel(create_one, objects[first_pod + 1 :], first=is_taken)
    return [*results, *filter(None, answers)]


def is_taken(error: BaseException) -> bool:
    """Whether an error of :func:`create` means that an object of another launch has the name."""
    if isinstance(error, ApiRefusal):
        # The reason Conflict has nothing to do with names: a quota, for example, causes it.
        return error.status == 409 and error.reason != "Conflict"
    return isinstance(error, UsageError)


def _check_name(client: ApiClient, objects: Sequence[Object]) -> None:
    for body in objects:
        kind, meta = kind_of(body), body["metadata"]
        if kind not in WORKLOADS:
            continue
        namespace, name = meta["namespace"], meta["name"]
        try:
            found = client.call("GET", kind.path(namespace, name), kind.call("get", namespace, name))
        except ApiRefusal as error:
            if error.status == 404 or is_permission_error(error.status, error.message):
                return
            raise
        raise name_in_use_error(kind.name, namespace, name, found)


def _check_queue(client: ApiClient, namespace: str, objects: Sequence[Object]) -> None:
    """Check that the queue and the priority class of the workload exist: else, the run would wait without end.

    Raises:
        UsageError: the cluster does not have Kueue, or Kueue does not have one of the two.
    """
    workloads = [one for one in objects if kind_of(one) in WORKLOADS]
    labels = (workloads[0]["metadata"].get("labels") or {}) if workloads else {}
    queue, priority = labels.get(QUEUE_LABEL), labels.get(PRIORITY_LABEL)
    if not queue:
        return
    version = served_version(client)
    if not version:
        raise UsageError(f"--queue {queue}: the cluster does not have Kueue", fix="launch without --queue")
    missing = f"--queue {queue}: namespace {namespace} has no LocalQueue of this name"
    _check_exists(client, local_queue_kind(version), namespace, queue, missing)
    if priority:
        missing = f"--workload-priority {priority}: the cluster has no WorkloadPriorityClass of this name"
        _check_exists(client, priority_kind(version), "", priority, missing)


def _reject_default_queue(objects: Sequence[Object], answer: Object) -> None:
    """Reject a queue that Kueue gives to what has none: in a namespace with a LocalQueue named "default", to all jobs.

    They would wait without end: pods outside of a queue request ephemeral storage, which few ClusterQueues cover.

    Args:
        objects: what is to be created.
        answer: the server's version of one of the objects, with the changes by webhooks.

    Raises:
        UsageError: the answer is in a queue, and the workload is not.
    """
    labels = [one["metadata"].get("labels") or {} for one in objects if kind_of(one) in WORKLOADS]
    meta = answer.get("metadata") or {}
    queue = (meta.get("labels") or {}).get(QUEUE_LABEL)
    if queue and not any(QUEUE_LABEL in one for one in labels):
        name = printable(str(queue), 253)
        text = f"Kueue puts every job of namespace {meta.get('namespace')} without a queue into LocalQueue {name}"
        raise UsageError(text, fix=f"--queue {name}")


def _check_exists(client: ApiClient, kind: Kind, namespace: str, name: str, missing: str) -> None:
    """Raise a UsageError with the text ``missing`` if there is no such object; it need not be readable."""
    try:
        client.call("GET", kind.path(namespace, name), kind.call("get", namespace, name))
    except ApiRefusal as error:
        if error.status == 404:
            where = f" -n {namespace}" if namespace else ""
            raise UsageError(missing, fix=f"kubectl get {kind.resource}{where}") from None
        if not is_permission_error(error.status, error.message):
            raise


def name_in_use_error(kind: str, namespace: str, name: str, found: Mapping[str, Any]) -> UsageError:
    """The error for a workload name that is in use."""
    run = run_of(found.get("metadata") or {})[0]
    if not run:
        text = f"{kind} {name} already exists in namespace {namespace} and is not managed by torchnet"
        return UsageError(text, fix="choose another --run-id")
    status = found.get("status") or {}
    state = next(
        (one["type"].lower() for one in status.get("conditions") or () if one.get("status") == "True"),
        str(status.get("phase") or "running").lower(),
    )
    return UsageError(
        f"run {run} already exists in namespace {namespace} ({printable(state, 40)})",
        fix=f"torchnet attach {run} -n {namespace}, or torchnet down {run} -n {namespace}",
    )


def _post(client: ApiClient, body: Object, *, dry: bool) -> Object:
    kind, meta = kind_of(body), body["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    query = {**_QUERY, "dryRun": "All"} if dry else _QUERY
    try:
        return client.call(
            "POST", kind.path(namespace), kind.call("create", namespace, name), query=query, body=body
        )
    except ApiRefusal as error:
        if is_taken(error):
            found = _existing(client, body)
            if after_lost_answer(error) and _results_from(found, body):
                return found
            # An object that cannot be read is taken for one of this run: no other tool creates such names.
            raise (name_in_use_error if kind in WORKLOADS else _object_in_use_error)(
                kind.name, namespace, name, found or body
            ) from None
        if error.status == 404 and "." in kind.resource and "namespaces" not in error.message:
            raise ClusterError(
                f"cannot create {kind.name} {name}: the cluster has no {kind.resource} ({kind.api}): {error.message}",
                fix="kubectl api-resources",
            ) from None
        raise


def _object_in_use_error(kind: str, namespace: str, name: str, found: Mapping[str, Any]) -> UsageError:
    """The error for an object name, not a workload's, that is in use; the run it belongs to may be gone."""
    run = run_of(found.get("metadata") or {})[0]
    if not run:
        return name_in_use_error(kind, namespace, name, found)
    text = f"{kind} {name} of run {run} already exists in namespace {namespace}"
    return UsageError(text, fix=f"torchnet down {run} -n {namespace}")


def _existing(client: ApiClient, body: Object) -> Object:
    """The existing object of this name, as the server has it; {} if it is gone by now or cannot be read."""
    kind, namespace, name = kind_of(body), body["metadata"]["namespace"], body["metadata"]["name"]
    try:
        return client.call("GET", kind.path(namespace, name), kind.call("get", namespace, name))
    except ClusterError:
        return {}


def _results_from(found: Object, body: Object) -> bool:
    """Whether ``found`` can result from creating ``body``: an earlier run's leftovers have other contents."""
    existing, meta = found.get("metadata") or {}, body["metadata"]
    if not existing or existing.get("deletionTimestamp"):
        return False
    matches = all(
        (meta.get(field) or {}).items() <= (existing.get(field) or {}).items()
        for field in ("labels", "annotations")
    )
    return matches and all(found.get(field) == body.get(field) for field in ("data", "binaryData"))


def _check_attachments(
    client: ApiClient, attachments: Sequence[NetworkAttachment]
) -> tuple[list[str], dict[str, Object]]:
    """Reject network attachments that do not exist: pods would hang before they start.

    Returns:
        A line for each attachment that this user may not read: if it is missing, only the CNI plugin will report it.
        The others, by NAMESPACE/NAME.
    """
    lines, known = [], {}
    for where, name in dict.fromkeys((one.namespace, one.name) for one in attachments):
        try:
            found = client.call("GET", NAD.path(where, name), NAD.call("get", where, name), patience=10.0)
            known[f"{where}/{name}"] = found
        except ApiRefusal as error:
            if error.status == 404:
                raise missing_attachment_error(client, where, name) from None
            if not is_permission_error(error.status, error.message):
                raise
            what = NAD.call("get", where)
            lines.append(f"network attachment {where}/{name} is not checked: not allowed to {what}")
    return lines, known


def missing_attachment_error(
    client: ApiClient,
    namespace: str,
    name: str,
    fix: str = "--network NAMESPACE/NAME, or torchnet manifests backend-network | kubectl apply -f -",
) -> NetworkError:
    """The error for a missing network attachment; it lists those that exist in the namespace."""
    try:
        listed = client.call("GET", NAD.path(namespace), NAD.call("list", namespace), patience=5.0)
        names = [str(item["metadata"]["name"]) for item in listed.get("items") or ()]
    except ApiRefusal as error:
        if error.status == 404:
            return NetworkError(
                "Multus is not installed: the cluster has no network attachments",
                fix="torchnet manifests multus | kubectl apply -f -",
            )
        names = []
    except ClusterError:
        names = []
    existing = f"; available: {', '.join(printable(one) for one in names[:10])}" if names else ""
    return NetworkError(
        f"network attachment {name} not found in namespace {namespace}{existing}",
        fix=fix,
    )
