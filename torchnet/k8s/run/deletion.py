"""The deletion of a run: every object with its label, workloads first, and the grace periods of its pods.

A later deletion shortens the period that the API reports, not the termination that a kubelet has begun
(SyncTerminatingPod in its kubelet.go, kubernetes#113606): the grace period that counts is the one seen first.

Deletion with grace period 0 takes a pod out of the API while its processes may still run, with their GPUs and their
addresses. So it is for pods whose node is gone or not Ready. On a Ready node, and where nodes may not be read, only
the kubelet ends a pod.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torchnet.console.console import Console
from torchnet.errors import TorchnetError
from torchnet.k8s.client.access import Access
from torchnet.k8s.client.api import METADATA, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import JOBSET, KINDS, NODE, POD, WORKLOADS, Kind, kind_of, selector
from torchnet.k8s.client.watch import own_error
from torchnet.k8s.run.interruptible import Interrupted, ThreadCall, in_thread
from torchnet.k8s.run.worker_set import seconds
from torchnet.signals import Signals
from torchnet.text import listed

# A pod that is deleted with grace period 0 gives its address back while it still has it, as Whereabouts watches the
# API: the next run's pod then fails its duplicate address detection. So its node gets so long after the pod's own time:
_SILENT_SECONDS = 12.0


class GracePeriods:
    """What is known from the objects of one removal, in the order in which they were seen.

    The cluster's clock and this machine's are not the same. But each answer has the server's date, and each stamp in it
    tells how late it was there at least, and what has passed since is counted here: so a pod that was deleted long ago
    need not be waited for anew, and no pod is for longer than its time, counted from when it was first seen.
    """

    def __init__(self, ahead: Callable[[], float] = lambda: float("-inf")) -> None:
        """``ahead``: of the server's clock to this machine's monotonic one, as far as its answers tell."""
        self._answers = ahead
        self._over: dict[str, float] = {}  # by UID, the server's time
        self._ahead = float("-inf")  # of the server's time, to this machine's monotonic one; at least
        self.longest = 0.0
        """The most seconds that one of the pods had for its end."""

    def look(self, meta: Mapping[str, Any]) -> None:
        """Note an object as it is now."""
        now = time.monotonic()
        fields = [field.get("time") for field in meta.get("managedFields") or ()]
        stamps = [seconds(stamp) for stamp in (meta.get("creationTimestamp"), *fields)]
        over = seconds(meta.get("deletionTimestamp"))
        if over:
            grace = float(meta.get("deletionGracePeriodSeconds") or 0)
            self.longest = max(self.longest, grace)
            self._over.setdefault(str(meta["uid"]), over)
            stamps.append(over - grace)  # the stamp is no time that has come, but when its own is over
        self._ahead = max(self._ahead, *(stamp - now for stamp in stamps if stamp), float("-inf"))

    def silent(self, meta: Mapping[str, Any]) -> bool:
        """Whether this pod's time has long been over, so that nothing is to be heard of it any more."""
        over = self._over.get(str(meta["uid"]))
        ahead = max(self._ahead, self._answers())
        return over is not None and ahead + time.monotonic() > over + _SILENT_SECONDS


_AGAIN_SECONDS = 2.0  # until a node is read again: it may become NotReady meanwhile


class TerminatingPods:
    """The pods of one removal that have not ended in time."""

    def __init__(self, door: ApiClient, namespace: str) -> None:
        self._door, self._namespace = door, namespace
        self._nodes: dict[str, str] = {}  # by the pod's UID
        self._kept: dict[str, tuple[float, str]] = {}  # by node: when it was read, and why its pods stay
        self._problems: dict[str, str] = {}  # by pod

    def abandoned(self, meta: Mapping[str, Any]) -> bool:
        """Whether this pod's node is gone or not Ready, so that no kubelet ends it.

        Raises:
            ClusterError: the API server cannot be reached.
        """
        if not meta.get("deletionGracePeriodSeconds"):
            return False  # the kubelet has ended it, or it was deleted by force: a finalizer holds it
        name, uid = str(meta["name"]), str(meta["uid"])
        if uid not in self._nodes:
            self._nodes[uid] = self._node_of(name)
        node = self._nodes[uid]
        why = self._why_kept(node) if node else ""
        self._problems.pop(name, None)
        if why:
            self._problems[name] = (
                f"pods/{name}: the kubelet on node {node} has not ended it yet, and {why}; its processes may still "
                f"run. After checking the node: kubectl delete pod {name} -n {self._namespace} --grace-period=0 --force"
            )
        return bool(node) and not why

    def problems(self, left: Sequence[str]) -> list[str]:
        """A line for each pod of ``left`` (KIND/NAME) that only its kubelet ends."""
        return [text for name, text in self._problems.items() if f"{POD.plural}/{name}" in left]

    def _node_of(self, name: str) -> str:
        """The pod's node; "" where it has none, is gone, or may not be read."""
        path, call = POD.path(self._namespace, name), POD.call("get", self._namespace, name)
        try:
            return str(self._door.call("GET", path, call)["spec"].get("nodeName") or "")
        except ApiRefusal as error:
            if error.status not in (403, 404):
                raise
            return ""

    def _why_kept(self, node: str) -> str:
        """Why this node's pods stay; "" where it is gone or not Ready."""
        at, why = self._kept.get(node, (float("-inf"), ""))
        if time.monotonic() > at + _AGAIN_SECONDS:
            at, why = self._kept[node] = time.monotonic(), self._read(node)
        return why

    def _read(self, node: str) -> str:
        call = NODE.call("get", "", node)
        try:
            found = self._door.call("GET", NODE.path("", node), call)
        except ApiRefusal as error:
            if error.status == 404:
                return ""
            if error.status != 403:
                raise
            return f"the node may not be read ({call.question})"
        conditions = (found.get("status") or {}).get("conditions") or ()
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return "the node is Ready" if ready else ""


_PAUSE = 0.2
NOW_SECONDS = 1  # not 0: so their nodes take the pods out themselves, with their addresses


@dataclass
class Removal:
    """``left``: objects that are still there, as KIND/NAME; ``problems``: why something could not be removed;
    ``unseen``: kinds that may not be listed, so that nothing is known of theirs."""

    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


def stop(door: ApiClient, namespace: str, run: str, *, grace: int | None = None) -> Removal:
    """Delete the workload and its pods: SIGTERM, and SIGKILL after ``grace`` seconds (None: the pods' own time)."""
    removal = Removal()
    _workloads(door, namespace, run, removal)
    query: dict[str, object] = {} if grace is None else {"gracePeriodSeconds": grace}
    if not _all_pods(door, namespace, run, query):  # else the garbage collector would, later
        _each(door, namespace, _names(door, POD, namespace, run, removal), grace, removal)
    return removal


def _stop_now(
    door: ApiClient, namespace: str, run: str, ending: GracePeriods, leaving: Callable[[int, float], None]
) -> Removal:
    """The same, in a second for each pod that is not being stopped already: that could not be hurried.

    ``leaving``: as :func:`remove` has it.
    """
    removal = Removal()
    there = _listed(door, POD, namespace, run, removal)
    for meta in there:
        ending.look(meta)
    fresh = [str(meta["name"]) for meta in there if not meta.get("deletionTimestamp")]
    if len(fresh) < len(there):
        leaving(len(there) - len(fresh), ending.longest)
    _workloads(door, namespace, run, removal)
    # Before the garbage collector does, which would begin a stop with the pods' own time.
    if len(fresh) < len(there) or not _all_pods(door, namespace, run, {"gracePeriodSeconds": NOW_SECONDS}):
        _each(door, namespace, fresh, NOW_SECONDS, removal)
    return removal


def _workloads(door: ApiClient, namespace: str, run: str, removal: Removal) -> None:
    for kind in WORKLOADS:
        if kind is not POD:
            for name in _names(door, kind, namespace, run, removal):
                _delete(door, kind, namespace, name, None, removal)


def _all_pods(door: ApiClient, namespace: str, run: str, query: dict[str, object]) -> bool:
    """Delete the run's pods with one call; False where only one by one is allowed."""
    query = {"labelSelector": selector(run), **query}
    try:
        door.call("DELETE", POD.path(namespace), POD.call("deletecollection", namespace), query=query)
    except ApiRefusal as error:
        if error.status != 403:
            raise
        return False
    return True


def _each(door: ApiClient, namespace: str, names: Sequence[str], grace: int | None, removal: Removal) -> None:
    for name in names:
        _delete(door, POD, namespace, name, grace, removal)


def remove(
    door: ApiClient,
    namespace: str,
    run: str,
    *,
    patience: float,
    now: bool = False,
    force: bool = False,
    leaving: Callable[[int, float], None] = lambda *_: None,
) -> Removal:
    """Delete everything of a run and wait until it is gone, or until the door's ``stop`` is set.

    ``patience``: the most seconds, beyond those that the pods get for their own end. With ``now``, that is a second for
    those that are not being stopped already; ``leaving`` gets how many are, and how many seconds they have at most.

    With ``force``, pods that are still there 12 seconds after their time is over are deleted with grace period 0 if
    their node is gone or not Ready. Others stay, and are named in the end.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    ending, terminating = GracePeriods(lambda: door.ahead), TerminatingPods(door, namespace)
    total = _stop_now(door, namespace, run, ending, leaving) if now else stop(door, namespace, run)
    for kind in KINDS:
        if kind not in WORKLOADS:
            for name in _names(door, kind, namespace, run, total):
                _delete(door, kind, namespace, name, None, total)
    began = time.monotonic()
    problems: list[str] = []
    while True:
        again = Removal()
        total.left = []
        for kind in KINDS:
            for meta in _listed(door, kind, namespace, run, again):
                total.left.append(f"{kind.plural}/{meta['name']}")
                ending.look(meta)
                if kind is not POD:  # made by a controller meanwhile
                    _delete(door, kind, namespace, meta["name"], None, again)
                elif ending.silent(meta) and terminating.abandoned(meta) and force:
                    _delete(door, POD, namespace, meta["name"], 0, again)
        problems += again.problems
        if not total.left or time.monotonic() > began + ending.longest + patience or door.stop.is_set():
            # Where nothing is left, what went wrong on the way is no matter; that nobody may look is.
            more = problems if total.left else again.problems
            total.problems = list(dict.fromkeys([*total.problems, *more, *terminating.problems(total.left)]))
            return total
        door.stop.wait(_PAUSE)


def those(door: ApiClient, objects: Sequence[dict[str, Any]]) -> Removal:
    """Delete these very objects, pods in a second, and nothing else of their run or of their names.

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
            door.call(
                "DELETE", kind.path(namespace, name), kind.call("delete", namespace, name), body=options
            )
        except ApiRefusal as error:
            if error.status not in (404, 409):  # gone, or gone and there is another one
                removal.problems.append(str(error))
                removal.left.append(f"{kind.plural}/{name}")
    return removal


def labelled(door: ApiClient, namespace: str, run: str) -> list[str]:
    """All that bears the run's label, as KIND/NAME, as far as it may be listed."""
    return [
        f"{kind.plural}/{name}" for kind in KINDS for name in _names(door, kind, namespace, run, Removal())
    ]


def _names(door: ApiClient, kind: Kind, namespace: str, run: str, removal: Removal) -> list[str]:
    return [str(meta["name"]) for meta in _listed(door, kind, namespace, run, removal)]


def _listed(door: ApiClient, kind: Kind, namespace: str, run: str, removal: Removal) -> list[dict[str, Any]]:
    """The metadata of what bears the run's label."""
    try:
        answer: dict[str, Any] = door.call(
            "GET",
            kind.path(namespace),
            kind.call("list", namespace),
            query={"labelSelector": selector(run)},
            accept=METADATA,
        )
    except ApiRefusal as error:
        if error.status == 404:
            return []  # the cluster has no such kind
        if error.status != 403:
            raise
        if kind in WORKLOADS and kind is not JOBSET:
            removal.problems.append(str(error))
        elif kind.resource not in removal.unseen:
            # The built-in `edit`, say: it could not make one either, but somebody else could.
            removal.unseen.append(kind.resource)
        return []
    return [item["metadata"] for item in answer.get("items") or ()]


def _delete(
    door: ApiClient, kind: Kind, namespace: str, name: str, grace: int | None, removal: Removal
) -> None:
    query: dict[str, object] = {"propagationPolicy": "Background"}
    if grace is not None:
        query["gracePeriodSeconds"] = grace
    try:
        door.call("DELETE", kind.path(namespace, name), kind.call("delete", namespace, name), query=query)
    except ApiRefusal as error:
        if error.status != 404:
            removal.problems.append(str(error))


_REMOVAL_SECONDS = 30.0  # beyond the pods' own time, until objects that do not go are named
_BRIEF_SECONDS = 0.8
_SIGNAL_SECONDS = 5.0  # after a signal, for the calls that are under way
_LEAVE_SECONDS = 0.5  # the same after a second one
_LAST_SECONDS = 0.3  # for a removal that was told to end to say what is left
_PROBLEMS = 5  # that are told


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
    """Remove everything of a run; a signal ends the waiting, and leaves what is there: it is being deleted. After
    two signals it is only begun.

    With ``now`` the pods get a second for their end; with ``brief`` a server that does not answer gets no second try.
    Whether nothing is left. What cannot be removed is told, and raises nothing: how the job
    ended is not to be lost for it.
    """
    given = {"patience": 0.0, "timeout": _BRIEF_SECONDS} if brief else {}
    door = ApiClient(access, **given)  # whatever else has been told to stop, this has not
    action = partial(remove, door, namespace, run, patience=_REMOVAL_SECONDS, now=now, force=True)
    removal: Removal | None
    try:
        try:
            if signals.count > 1:
                call = ThreadCall(action)
                call.wait(_LEAVE_SECONDS)
                door.stop.set()
                call.wait(_LAST_SECONDS)
                return tell(console, call.result(), namespace, run)
            removal = in_thread(
                action,
                signals,
                patience=lambda: _LEAVE_SECONDS if signals.count > 1 else _SIGNAL_SECONDS,
                on_signal=door.stop.set,
                silence=access.silence,
            )
        except Interrupted as error:
            removal = error.call.result()
    except TorchnetError as error:
        removal = Removal(problems=[str(error)])
    except Exception as error:
        removal = Removal(problems=[str(own_error("it", error))])
    return tell(console, removal, namespace, run)


def tell(console: Console, removal: Removal | None, namespace: str, run: str) -> bool:
    """Name what is left; None is a removal that has not ended. Whether there is nothing to name."""
    lines = ["it was left before its end"] if removal is None else removal.problems[:_PROBLEMS]
    if removal is not None and removal.left:
        lines.append(f"still there: {listed(removal.left, limit=10)}")
    if lines:
        text = "\n".join([f"the removal of {run}:", *lines, f"fix: torchnet down {run} -n {namespace}"])
        console.notice(text, "warning")
    return not lines
