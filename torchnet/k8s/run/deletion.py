"""Delete a run: every object with its label, workloads first, and the grace periods of its pods.

Nothing is listed in a loop that has no growing intervals: a run may have a thousand pods, and its cluster other users.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError
from torchnet.k8s.client.api_client import METADATA, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.backoff import Backoff
from torchnet.k8s.client.kinds import (
    FORMER_KINDS,
    JOBSET,
    KINDS,
    POD,
    PROTECTION,
    WORKLOADS,
    Kind,
    kind_of,
    selector,
)
from torchnet.k8s.client.parallel import parallel
from torchnet.k8s.client.pod_watch import PodWatch
from torchnet.k8s.client.watch import list_pages
from torchnet.k8s.run.grace_periods import GracePeriods, TerminatingPods
from torchnet.k8s.run.owner_references import MOST_OWNERS, reference, replace_owners

_PROTECTION_SECONDS = (
    3.0  # of retries, for each list of what protects the pods, before the workload is deleted
)
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
    protects: Callable[[], bool] = lambda: True,
) -> Removal:
    """Delete the workload and its pods, without waiting for their end.

    The objects that protect the pods stay until then: the pods become their owners, so that the garbage collector
    deletes them with the last pod even if this program does not wait for it.

    Args:
        label: the key of the label with the run's name.
        protects: asked before each request for these objects; once it returns False, the rest of them is left out, so
            that the workload is deleted at once.
        grace: seconds from SIGTERM to SIGKILL; None keeps the grace period of each pod.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    removal, chosen = Removal(), selector(run, label)
    _keep_protection(client, namespace, chosen, protects)
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
    protects: Callable[[], bool],
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
    _keep_protection(client, namespace, chosen, protects, existing)
    _workloads(client, namespace, chosen, removal)
    # Before the garbage collector does so with the pods' own grace periods.
    if len(fresh) < len(existing) or not _all_pods(
        client, namespace, chosen, {"gracePeriodSeconds": NOW_SECONDS}
    ):
        _each(client, namespace, fresh, NOW_SECONDS, removal)
    return removal


def _keep_protection(
    client: ApiClient,
    namespace: str,
    chosen: str,
    protects: Callable[[], bool],
    pods: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Make some of the pods own what protects them, in place of the workload, which is deleted before they end.

    All pods are deleted at the same time, so that 16 of them stand for the others. Errors are not reported, because the
    stop must not depend on this.
    """
    unseen, wait = Removal(), _PROTECTION_SECONDS
    try:
        if pods is None and protects():
            pods = _list(client, POD, namespace, chosen, unseen, limit=MOST_OWNERS, patience=wait)
        references = [reference(POD, meta) for meta in (pods or ())[:MOST_OWNERS]]
        for kind in PROTECTION if references else ():
            for meta in _list(client, kind, namespace, chosen, unseen, patience=wait) if protects() else ():
                owners = meta.get("ownerReferences") or ()
                if protects() and not (owners and all(owner["kind"] == POD.name for owner in owners)):
                    replace_owners(client, kind, meta, references)
    except ClusterError:
        return


def _workloads(client: ApiClient, namespace: str, chosen: str, removal: Removal) -> None:
    for kind in WORKLOADS:
        if kind is not POD:
            for name in _names(client, kind, namespace, chosen, removal):
                _delete(client, kind, namespace, name, None, removal)


def _all_pods(client: ApiClient, namespace: str, chosen: str, query: dict[str, object]) -> bool:
    """Delete the run's pods in one call; False if the server refuses, as it does to users without this right."""
    query = {"labelSelector": chosen, **query}
    path, call = POD.path(namespace), POD.call("deletecollection", namespace)
    try:
        client.call("DELETE", path, call, query=query, accept=METADATA)  # the answer holds all pods
    except ApiRefusal as error:
        if error.status == 401:  # every other request would be refused, too
            raise
        return False  # each deletion reports its own refusal
    return True


def _each(
    client: ApiClient, namespace: str, names: Sequence[str], grace: int | None, removal: Removal
) -> None:
    parallel(lambda name: _delete(client, POD, namespace, name, grace, removal), names)


def remove(
    client: ApiClient,
    namespace: str,
    run: str,
    *,
    patience: float,
    label: str = RUN_LABEL,
    now: bool = False,
    force: bool = False,
    protects: Callable[[], bool] = lambda: True,
    on_terminating: Callable[[int, float], None] = lambda *_: None,
) -> Removal:
    """Delete all objects of a run, and wait until they are gone or ``client.stop`` is set.

    Network policies and the token's Secret are deleted last, once the pods are gone.

    Args:
        protects: as for :func:`stop`.
        label: the key of the label with the run's name.
        patience: the longest wait in seconds for another pod to go, beyond the longest grace period of the pods.
        now: use a grace period of 1 s for pods that are not terminating already.
        force: delete pods with grace period 0 if they still exist 12 s after their grace period and their node is gone
            or has lost its kubelet. Other pods stay, and ``problems`` of the result names them.
        on_terminating: with ``now``, called if pods are already terminating, with their number and their longest grace
            period in seconds.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    grace_periods = GracePeriods(lambda: client.clock_offset)
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
    with PodWatch(client, namespace, chosen, metadata=True) as pods:
        rest = _Remainder(client, namespace, chosen, pods, grace_periods, force=force)
        return rest.wait(total, patience)


_PODS_PAUSE, _LONGEST_PODS_PAUSE = 1.0, 16.0  # seconds between two lists of other kinds while there are pods
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # the same once the pods are gone
_TICK_SECONDS = 0.2
_SECONDS_PER_POD = 5e-4  # between two looks at the pods: a change of one waits for those of others
_FORCE_SECONDS = 1.0  # between two forced deletions of a pod


class _Remainder:
    """What is left of a run while its objects are being deleted.

    A watch reports the pods, of which there may be a thousand. The other kinds are listed at growing intervals.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        chosen: str,
        pods: PodWatch,
        grace_periods: GracePeriods,
        *,
        force: bool,
    ) -> None:
        self._client, self._namespace, self._chosen = client, namespace, chosen
        self._pods, self._grace_periods, self._force = pods, grace_periods, force
        self._terminating = TerminatingPods(client, namespace)
        self._names: dict[Kind, list[str]] = {}  # as of the last list
        self._forced: dict[str, float] = {}  # by pod UID: when its deletion may be forced again
        self._with_pods, self._with_others = Removal(), Removal()  # the problems of the last look at them
        self._problems: list[str] = []  # of all looks

    def wait(self, total: Removal, patience: float) -> Removal:
        """Wait until nothing is left, the patience has ended, or the client's ``stop`` is set; complete ``total``.

        The patience begins anew with each pod that goes: a busy server takes a minute to delete a thousand.
        """
        stop = self._client.stop
        while not self._pods.is_listed and not stop.is_set():
            self._pods.wait(_TICK_SECONDS)
        due = began = progress = time.monotonic()
        backoff, had_pods = Backoff(_PODS_PAUSE, _LONGEST_PODS_PAUSE), True
        fewest: float = math.inf
        kinds: list[Kind] = list(KINDS)
        while True:
            has_pods, now = self._look_at_pods(), time.monotonic()
            if len(self._names[POD]) < fewest:
                fewest, progress = len(self._names[POD]), now
            late = now > max(began + self._grace_periods.longest, progress) + patience
            if had_pods and not has_pods:
                due, backoff = now, Backoff(_PAUSE, _LONGEST_PAUSE)
            had_pods = has_pods
            if now >= due or late:
                self._look_at_others(kinds if has_pods and not late else KINDS, total)
                kinds = [kind for kind in self._names if self._names[kind] and kind not in PROTECTION]
                due = now + backoff.next()
            left = [f"{kind.plural}/{name}" for kind in KINDS for name in self._names.get(kind, ())]
            if not left or late or stop.is_set():
                # If nothing is left, earlier problems do not matter; the last ones do: a kind may be unlisted.
                last = [*self._with_pods.problems, *self._with_others.problems]
                problems = [*(self._problems if left else last), *self._terminating.problems(left)]
                total.left, total.problems = left, list(dict.fromkeys([*total.problems, *problems]))
                return total
            stop.wait(len(self._names[POD]) * _SECONDS_PER_POD)
            self._pods.wait(_TICK_SECONDS)

    def _look_at_pods(self) -> bool:
        """Whether there are pods; with ``force``, those on lost nodes are deleted with grace period 0."""
        found = self._with_pods = Removal()
        try:
            pods = [one["metadata"] for one in self._pods.bodies().values()]
            if not self._pods.is_listed:  # the client's stop was set before
                pods = _list(self._client, POD, self._namespace, self._chosen, found)
        except ApiRefusal as error:
            if error.status != 403:
                raise
            pods, found.problems = [], [str(error)]
        self._names[POD] = [str(meta["name"]) for meta in pods]
        for meta in () if self._client.stop.is_set() else pods:
            self._grace_periods.record(meta)
            if not self._grace_periods.is_overdue(meta) or not self._terminating.is_abandoned(meta):
                continue
            uid, now = str(meta["uid"]), time.monotonic()
            if self._force and now >= self._forced.get(uid, now):
                self._forced[uid] = now + _FORCE_SECONDS
                _delete(self._client, POD, self._namespace, str(meta["name"]), 0, found)
        self._add(found)
        return bool(pods)

    def _look_at_others(self, kinds: Iterable[Kind], total: Removal) -> None:
        """List these kinds, and delete what is there, except for what protects pods that still exist."""
        found = self._with_others = Removal(unseen=total.unseen)
        for kind in kinds:
            if kind is POD:
                continue
            names = self._names[kind] = _names(self._client, kind, self._namespace, self._chosen, found)
            if not (self._names[POD] and kind in PROTECTION):
                for name in names:  # a controller may have created it meanwhile
                    _delete(self._client, kind, self._namespace, name, None, found)
        self._add(found)

    def _add(self, found: Removal) -> None:
        self._problems += [one for one in found.problems if one not in self._problems]


def delete_objects(client: ApiClient, objects: Sequence[dict[str, Any]]) -> Removal:
    """Delete exactly these objects (by UID), pods with a grace period of 1 s, and nothing else of their run.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    removal = Removal()

    def delete(body: dict[str, Any]) -> None:
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

    pods = [body for body in objects if kind_of(body) is POD]
    for body in objects:
        if kind_of(body) is not POD:
            delete(body)
    parallel(delete, pods)
    return removal


def has_objects(client: ApiClient, namespace: str, run: str, *, label: str = RUN_LABEL) -> bool:
    """Whether an object that this user may list has the run's label."""
    chosen = selector(run, label)
    return any(_list(client, kind, namespace, chosen, Removal(), limit=1) for kind in KINDS)


def _names(client: ApiClient, kind: Kind, namespace: str, chosen: str, removal: Removal) -> list[str]:
    return [str(meta["name"]) for meta in _list(client, kind, namespace, chosen, removal)]


def _list(
    client: ApiClient,
    kind: Kind,
    namespace: str,
    chosen: str,
    removal: Removal,
    *,
    limit: int | None = None,
    patience: float | None = None,
) -> list[dict[str, Any]]:
    """The metadata of this kind's objects that a label selector finds, or of the first ``limit`` ones."""
    path, call, query = kind.path(namespace), kind.call("list", namespace), {"labelSelector": chosen}
    try:
        found, _ = list_pages(client, path, call, query, metadata=True, limit=limit, patience=patience)
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
    return [item["metadata"] for item in found]


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
