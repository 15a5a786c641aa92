"""Delete a run: every object with its label, workloads first, and the grace periods of its pods.

A later deletion shortens the grace period that the API reports, but not a termination that the kubelet has begun
(SyncTerminatingPod in kubelet.go, kubernetes#113606). The grace period that counts is therefore the first one seen.

A deletion with grace period 0 removes a pod from the API while its processes may still run and hold GPUs and
addresses. It is therefore used only for pods whose node is gone or whose condition Ready is Unknown.
The kubelet itself reports False, for example while its container runtime hangs, and still ends its pods. On such a
node, on a Ready one, or if nodes cannot be read, only the kubelet ends a pod.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torchnet.console.console import Console
from torchnet.constants import RUN_LABEL
from torchnet.errors import TorchnetError
from torchnet.k8s.client.access import Access
from torchnet.k8s.client.api_client import METADATA, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import (
    FORMER_KINDS,
    JOBSET,
    KINDS,
    NODE,
    POD,
    PROTECTION,
    WORKLOADS,
    Kind,
    kind_of,
    selector,
)
from torchnet.k8s.client.watch import internal_error
from torchnet.k8s.run.interruptible import Interrupted, ThreadCall, in_thread
from torchnet.k8s.run.owner_references import MOST_OWNERS, reference, replace_owners
from torchnet.k8s.run.worker_set import seconds
from torchnet.signals import Signals
from torchnet.text import listed, printable

# Whereabouts watches the API: it frees the address of a pod that is deleted with grace period 0 although the pod may
# still use it, and a pod of the next run then fails duplicate address detection. Before a forced deletion, the node
# therefore gets this many seconds beyond the pod's grace period.
_SILENT_SECONDS = 12.0


class GracePeriods:
    """The grace periods of the pods of one removal, measured by the server's clock.

    The server's clock and this machine's may differ. Every response carries the server's date, and every time stamp in
    an object is a lower bound of the server's time; from there on, this machine's monotonic clock counts. So a pod that
    was deleted long ago is not waited for again, and no pod is waited for longer than its grace period and a margin
    from when it was first seen.
    """

    def __init__(self, clock_offset: Callable[[], float] = lambda: float("-inf")) -> None:
        """Create an empty record.

        Args:
            clock_offset: returns the server's unix time minus this machine's monotonic time, as of its last response.
        """
        self._response_offset = clock_offset
        self._over: dict[str, float] = {}  # by pod UID: end of the grace period, the server's unix time
        self._clock_offset = float("-inf")  # lower bound of the server's unix time minus our monotonic time
        self.longest = 0.0
        """The longest grace period among the pods, in seconds."""

    def record(self, meta: Mapping[str, Any]) -> None:
        """Record the current metadata of an object."""
        now = time.monotonic()
        fields = [field.get("time") for field in meta.get("managedFields") or ()]
        stamps = [seconds(stamp) for stamp in (meta.get("creationTimestamp"), *fields)]
        over = seconds(meta.get("deletionTimestamp"))
        if over:
            grace = float(meta.get("deletionGracePeriodSeconds") or 0)
            self.longest = max(self.longest, grace)
            self._over.setdefault(str(meta["uid"]), over)
            stamps.append(over - grace)  # deletionTimestamp may lie ahead: it is the end of the grace period
        self._clock_offset = max(
            self._clock_offset, *(stamp - now for stamp in stamps if stamp), float("-inf")
        )

    def is_overdue(self, meta: Mapping[str, Any]) -> bool:
        """Whether this pod's grace period ended so long ago that its kubelet should have removed it."""
        over = self._over.get(str(meta["uid"]))
        clock_offset = max(self._clock_offset, self._response_offset())
        return over is not None and clock_offset + time.monotonic() > over + _SILENT_SECONDS


_AGAIN_SECONDS = 2.0  # between two reads of a node, which may be lost meanwhile
_LONGEST = 300  # characters of a condition


class TerminatingPods:
    """The pods of one removal that still exist after their grace period."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._nodes: dict[str, str] = {}  # node name by pod UID
        self._kept: dict[str, tuple[float, str]] = {}  # by node: when it was read, and why its pods stay
        self._problems: dict[str, str] = {}  # by pod name

    def is_abandoned(self, meta: Mapping[str, Any]) -> bool:
        """Whether this pod's node is gone or has lost its kubelet, so that nothing ends the pod.

        Raises:
            ClusterError: the API server cannot be reached.
        """
        if not meta.get("deletionGracePeriodSeconds"):
            return False  # the kubelet has ended it, or a deletion was forced already: a finalizer keeps it
        name, uid = str(meta["name"]), str(meta["uid"])
        if uid not in self._nodes:
            self._nodes[uid] = self._node_of(name)
        node = self._nodes[uid]
        why = self._why_kept(node) if node else ""
        self._problems.pop(name, None)
        if why:
            self._problems[name] = (
                f"pods/{name}: the kubelet on node {node} has not terminated it, and {why}. Its processes may still "
                "be running. Check the node, then: "
                f"kubectl delete pod {name} -n {self._namespace} --grace-period=0 --force"
            )
        return bool(node) and not why

    def problems(self, left: Sequence[str]) -> list[str]:
        """A line for each pod in ``left`` (PLURAL/NAME) that only its kubelet may end."""
        return [text for name, text in self._problems.items() if f"{POD.plural}/{name}" in left]

    def _node_of(self, name: str) -> str:
        """The name of the pod's node; "" if the pod has none, is gone, or cannot be read."""
        path, call = POD.path(self._namespace, name), POD.call("get", self._namespace, name)
        try:
            return str(self._client.call("GET", path, call)["spec"].get("nodeName") or "")
        except ApiRefusal as error:
            if error.status not in (403, 404):
                raise
            return ""

    def _why_kept(self, node: str) -> str:
        """Why this node's pods stay; "" if the node is gone or has lost its kubelet."""
        at, why = self._kept.get(node, (float("-inf"), ""))
        if time.monotonic() > at + _AGAIN_SECONDS:
            at, why = self._kept[node] = time.monotonic(), self._read(node)
        return why

    def _read(self, node: str) -> str:
        call = NODE.call("get", "", node)
        try:
            found = self._client.call("GET", NODE.path("", node), call)
        except ApiRefusal as error:
            if error.status == 404:
                return ""
            if error.status != 403:
                raise
            return f"the node cannot be read ({call.question})"
        conditions = (found.get("status") or {}).get("conditions") or ()
        ready: Mapping[str, Any] = next((one for one in conditions if one["type"] == "Ready"), {})
        if ready.get("status") == "Unknown":
            return ""
        if ready.get("status") == "True":
            return "the node is Ready"
        why = printable(
            ": ".join(str(ready[key]) for key in ("reason", "message") if ready.get(key)), _LONGEST
        )
        return f"the kubelet reports the node as not Ready ({why or 'no reason given'})"


_PAUSE = 0.2
NOW_SECONDS = 1  # not 0: with 1, the kubelets remove the pods themselves, together with their addresses


@dataclass
class Removal:
    """The result of a removal.

    Attributes:
        left: objects that still exist, as PLURAL/NAME (``pods/run-0``).
        problems: why objects could not be deleted.
        unseen: resources that this user may not list, so that nothing is known about their objects.
    """

    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


def stop(
    client: ApiClient,
    namespace: str,
    run: str,
    *,
    grace: int | None = None,
    label: str = RUN_LABEL,
    protects: bool = True,
) -> Removal:
    """Delete the workload and its pods, without waiting for their end.

    The objects that protect the pods stay until then: the pods become their owners, so that the garbage collector
    deletes them with the last pod even if this program does not wait for it.

    Args:
        label: the key of the label with the run's name.
        protects: False to save these requests.
        grace: seconds from SIGTERM to SIGKILL; None keeps the grace period of each pod.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    removal, chosen = Removal(), selector(run, label)
    if protects:
        _keep_protection(client, namespace, chosen, _list(client, POD, namespace, chosen, removal), removal)
    _workloads(client, namespace, chosen, removal)
    query: dict[str, object] = {} if grace is None else {"gracePeriodSeconds": grace}
    # The garbage collector would delete the pods as well, but later.
    if not _all_pods(client, namespace, chosen, query):
        _each(client, namespace, _names(client, POD, namespace, chosen, removal), grace, removal)
    return removal


def _stop_now(
    client: ApiClient,
    namespace: str,
    chosen: str,
    grace_periods: GracePeriods,
    on_terminating: Callable[[int, float], None],
    *,
    protects: bool,
) -> Removal:
    """Delete the workload and its pods with a grace period of 1 s.

    Pods that are already terminating cannot be hurried: ``on_terminating`` is called with their number and their
    longest grace period in seconds.
    """
    removal = Removal()
    existing = _list(client, POD, namespace, chosen, removal)
    for meta in existing:
        grace_periods.record(meta)
    fresh = [str(meta["name"]) for meta in existing if not meta.get("deletionTimestamp")]
    if len(fresh) < len(existing):
        on_terminating(len(existing) - len(fresh), grace_periods.longest)
    if protects:
        _keep_protection(client, namespace, chosen, existing, removal)
    _workloads(client, namespace, chosen, removal)
    # Before the garbage collector does so with the pods' own grace periods.
    if len(fresh) < len(existing) or not _all_pods(
        client, namespace, chosen, {"gracePeriodSeconds": NOW_SECONDS}
    ):
        _each(client, namespace, fresh, NOW_SECONDS, removal)
    return removal


def _keep_protection(
    client: ApiClient, namespace: str, chosen: str, pods: Sequence[dict[str, Any]], removal: Removal
) -> None:
    """Make some of the pods own what protects them, in place of the workload, which is deleted before they end.

    All pods are deleted at the same time, so that 16 of them stand for the others.
    """
    references = [reference(POD, meta) for meta in pods[:MOST_OWNERS]]
    for kind in PROTECTION if references else ():
        for meta in _list(client, kind, namespace, chosen, removal):
            owners = meta.get("ownerReferences") or ()
            if owners and all(owner["kind"] == POD.name for owner in owners):
                continue
            try:
                replace_owners(client, kind, meta, references)
            except ApiRefusal:
                pass  # the stop must not depend on it


def _workloads(client: ApiClient, namespace: str, chosen: str, removal: Removal) -> None:
    for kind in WORKLOADS:
        if kind is not POD:
            for name in _names(client, kind, namespace, chosen, removal):
                _delete(client, kind, namespace, name, None, removal)


def _all_pods(client: ApiClient, namespace: str, chosen: str, query: dict[str, object]) -> bool:
    """Delete the run's pods in one call; False if this user may not delete collections."""
    query = {"labelSelector": chosen, **query}
    try:
        client.call("DELETE", POD.path(namespace), POD.call("deletecollection", namespace), query=query)
    except ApiRefusal as error:
        if error.status != 403:
            raise
        return False
    return True


def _each(
    client: ApiClient, namespace: str, names: Sequence[str], grace: int | None, removal: Removal
) -> None:
    for name in names:
        _delete(client, POD, namespace, name, grace, removal)


def remove(
    client: ApiClient,
    namespace: str,
    run: str,
    *,
    patience: float,
    label: str = RUN_LABEL,
    now: bool = False,
    force: bool = False,
    protects: bool = True,
    on_terminating: Callable[[int, float], None] = lambda *_: None,
) -> Removal:
    """Delete all objects of a run, and wait until they are gone or ``client.stop`` is set.

    Network policies and the token's Secret are deleted last, once the pods are gone.

    Args:
        protects: False if these may be deleted earlier, to save requests before the workload's deletion.
        label: the key of the label with the run's name.
        patience: the longest wait in seconds, beyond the longest grace period of the pods.
        now: use a grace period of 1 s for pods that are not terminating already.
        force: delete pods with grace period 0 if they still exist 12 s after their grace period and their node is gone
            or has lost its kubelet. Other pods stay, and ``problems`` of the result names them.
        on_terminating: with ``now``, called if pods are already terminating, with their number and their longest grace
            period in seconds.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    grace_periods, terminating = GracePeriods(lambda: client.clock_offset), TerminatingPods(client, namespace)
    chosen = selector(run, label)
    total = (
        _stop_now(client, namespace, chosen, grace_periods, on_terminating, protects=protects)
        if now
        else stop(client, namespace, run, label=label, protects=protects)
    )
    for kind in KINDS:
        if kind not in WORKLOADS and kind not in PROTECTION:
            for name in _names(client, kind, namespace, chosen, total):
                _delete(client, kind, namespace, name, None, total)
    began = time.monotonic()
    problems: list[str] = []
    while True:
        latest = Removal()
        total.left = []
        for kind in KINDS:  # pods come before what protects them
            kept = kind in PROTECTION and any(one.startswith(f"{POD.plural}/") for one in total.left)
            for meta in _list(client, kind, namespace, chosen, latest):
                total.left.append(f"{kind.plural}/{meta['name']}")
                grace_periods.record(meta)
                if kept:
                    continue
                if kind is not POD:  # a controller may have created it meanwhile
                    _delete(client, kind, namespace, meta["name"], None, latest)
                elif grace_periods.is_overdue(meta) and terminating.is_abandoned(meta) and force:
                    _delete(client, POD, namespace, meta["name"], 0, latest)
        problems += latest.problems
        if (
            not total.left
            or time.monotonic() > began + grace_periods.longest + patience
            or client.stop.is_set()
        ):
            # If nothing is left, earlier turns' problems do not matter; the last one's do: a kind may be unlisted.
            more = problems if total.left else latest.problems
            total.problems = list(dict.fromkeys([*total.problems, *more, *terminating.problems(total.left)]))
            total.unseen = list(dict.fromkeys([*total.unseen, *latest.unseen]))
            return total
        client.stop.wait(_PAUSE)


def delete_objects(client: ApiClient, objects: Sequence[dict[str, Any]]) -> Removal:
    """Delete exactly these objects (by UID), pods with a grace period of 1 s, and nothing else of their run.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    removal = Removal()
    for body in objects:
        kind, meta = kind_of(body), body["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        options: dict[str, object] = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": meta["uid"]},
            "propagationPolicy": "Background",
        }
        if kind is POD:
            options["gracePeriodSeconds"] = NOW_SECONDS
        try:
            client.call(
                "DELETE", kind.path(namespace, name), kind.call("delete", namespace, name), body=options
            )
        except ApiRefusal as error:
            if error.status not in (404, 409):  # gone, or another object has the name by now
                removal.problems.append(str(error))
                removal.left.append(f"{kind.plural}/{name}")
    return removal


def list_labelled(client: ApiClient, namespace: str, run: str, *, label: str = RUN_LABEL) -> list[str]:
    """All objects with the run's label that this user may list, as PLURAL/NAME."""
    chosen = selector(run, label)
    return [
        f"{kind.plural}/{name}"
        for kind in KINDS
        for name in _names(client, kind, namespace, chosen, Removal())
    ]


def _names(client: ApiClient, kind: Kind, namespace: str, chosen: str, removal: Removal) -> list[str]:
    return [str(meta["name"]) for meta in _list(client, kind, namespace, chosen, removal)]


def _list(
    client: ApiClient, kind: Kind, namespace: str, chosen: str, removal: Removal
) -> list[dict[str, Any]]:
    """The metadata of this kind's objects that a label selector finds."""
    try:
        answer: dict[str, Any] = client.call(
            "GET",
            kind.path(namespace),
            kind.call("list", namespace),
            query={"labelSelector": chosen},
            accept=METADATA,
        )
    except ApiRefusal as error:
        if error.status == 404:
            return []  # the cluster has no such kind
        if error.status != 403:
            raise
        if kind in WORKLOADS and kind is not JOBSET:
            removal.problems.append(str(error))
        elif kind not in FORMER_KINDS and kind.resource not in removal.unseen:
            removal.unseen.append(kind.resource)
        return []
    return [item["metadata"] for item in answer.get("items") or ()]


def _delete(
    client: ApiClient, kind: Kind, namespace: str, name: str, grace: int | None, removal: Removal
) -> None:
    query: dict[str, object] = {"propagationPolicy": "Background"}
    if grace is not None:
        query["gracePeriodSeconds"] = grace
    try:
        client.call("DELETE", kind.path(namespace, name), kind.call("delete", namespace, name), query=query)
    except ApiRefusal as error:
        if error.status != 404:
            removal.problems.append(str(error))


_REMOVAL_SECONDS = 30.0  # beyond the pods' grace periods, before objects that still exist are reported
_BRIEF_SECONDS = 0.8  # for each request of a brief removal
_SIGNAL_SECONDS = 5.0  # after a signal, for requests in flight
_LEAVE_SECONDS = 0.5  # the same after a second signal
_LAST_SECONDS = 0.3  # for an interrupted removal to report what is left
INTERRUPTED = "the clean-up was interrupted"
_PROBLEMS = 5  # how many problems are reported


def clear(
    access: Access,
    namespace: str,
    run: str,
    console: Console,
    signals: Signals,
    *,
    now: bool = False,
    brief: bool = False,
) -> bool:
    """Remove all objects of a run, and report on the console what could not be removed.

    A signal ends the wait; the objects that still exist are being deleted. After two signals, the removal is only
    begun. Problems are reported, not raised, so that they do not hide how the job ended.

    Args:
        now: use a grace period of 1 s.
        brief: do not retry a request that gets no response.

    Returns:
        Whether there was nothing to report.
    """
    client_options = {"patience": 0.0, "timeout": _BRIEF_SECONDS} if brief else {}
    client = ApiClient(access, **client_options)  # a new client: the caller's may have its stop event set
    protects = signals.count < 2  # else the user waits, and may leave before the workload is deleted
    action = partial(
        remove, client, namespace, run, patience=_REMOVAL_SECONDS, now=now, force=True, protects=protects
    )
    removal: Removal | None
    try:
        try:
            if signals.count > 1:
                call = ThreadCall(action)
                call.wait(_LEAVE_SECONDS)
                client.stop.set()
                call.wait(_LAST_SECONDS)
                return report(console, call.result(), namespace, run)
            removal = in_thread(
                action,
                signals,
                patience=lambda: _LEAVE_SECONDS if signals.count > 1 else _SIGNAL_SECONDS,
                on_signal=client.stop.set,
                silence=access.silence,
            )
        except Interrupted as error:
            removal = error.call.result()
    except TorchnetError as error:
        removal = Removal(problems=[str(error)])
    except Exception as error:
        removal = Removal(problems=[str(internal_error("the clean-up", error))])
    return report(console, removal, namespace, run)


def report(console: Console, removal: Removal | None, namespace: str, run: str) -> bool:
    """Report what a removal left; None stands for one that was interrupted.

    Returns:
        Whether there was nothing to report.
    """
    lines = [INTERRUPTED] if removal is None else removal.problems[:_PROBLEMS]
    if removal is not None and removal.left:
        lines.append(f"not deleted: {listed(removal.left, limit=10)}")
    if lines:
        text = "\n".join(
            [f"the clean-up of {run} is incomplete:", *lines, f"fix: torchnet down {run} -n {namespace}"]
        )
        console.notice(text, "warning")
    return not lines
