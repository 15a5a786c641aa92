"""The end of a run's objects: all that bears its label, what makes pods first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchnet.runtimes.kubernetes.door import METADATA, Door
from torchnet.runtimes.kubernetes.ending import Ending
from torchnet.runtimes.kubernetes.refused import Refused
from torchnet.runtimes.kubernetes.resources import JOBSET, KINDS, POD, WORKLOADS, Kind, kind_of, selector
from torchnet.runtimes.kubernetes.terminating import Terminating

_PAUSE = 0.2
NOW_SECONDS = 1  # not 0: so their nodes take the pods out themselves, with their addresses


@dataclass
class Removal:
    """``left``: objects that are still there, as KIND/NAME; ``problems``: why something could not be removed;
    ``unseen``: kinds that may not be listed, so that nothing is known of theirs."""

    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


def stop(door: Door, namespace: str, run: str, *, grace: int | None = None) -> Removal:
    """Delete the workload and its pods: SIGTERM, and SIGKILL after ``grace`` seconds (None: the pods' own time)."""
    removal = Removal()
    _workloads(door, namespace, run, removal)
    query: dict[str, object] = {} if grace is None else {"gracePeriodSeconds": grace}
    if not _all_pods(door, namespace, run, query):  # else the garbage collector would, later
        _each(door, namespace, _names(door, POD, namespace, run, removal), grace, removal)
    return removal


def _stop_now(
    door: Door, namespace: str, run: str, ending: Ending, leaving: Callable[[int, float], None]
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


def _workloads(door: Door, namespace: str, run: str, removal: Removal) -> None:
    for kind in WORKLOADS:
        if kind is not POD:
            for name in _names(door, kind, namespace, run, removal):
                _delete(door, kind, namespace, name, None, removal)


def _all_pods(door: Door, namespace: str, run: str, query: dict[str, object]) -> bool:
    """Delete the run's pods with one call; False where only one by one is allowed."""
    query = {"labelSelector": selector(run), **query}
    try:
        door.call("DELETE", POD.path(namespace), POD.call("deletecollection", namespace), query=query)
    except Refused as error:
        if error.status != 403:
            raise
        return False
    return True


def _each(door: Door, namespace: str, names: Sequence[str], grace: int | None, removal: Removal) -> None:
    for name in names:
        _delete(door, POD, namespace, name, grace, removal)


def remove(
    door: Door,
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
    ending, terminating = Ending(lambda: door.ahead), Terminating(door, namespace)
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


def those(door: Door, objects: Sequence[dict[str, Any]]) -> Removal:
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
        except Refused as error:
            if error.status not in (404, 409):  # gone, or gone and there is another one
                removal.problems.append(str(error))
                removal.left.append(f"{kind.plural}/{name}")
    return removal


def labelled(door: Door, namespace: str, run: str) -> list[str]:
    """All that bears the run's label, as KIND/NAME, as far as it may be listed."""
    return [
        f"{kind.plural}/{name}" for kind in KINDS for name in _names(door, kind, namespace, run, Removal())
    ]


def _names(door: Door, kind: Kind, namespace: str, run: str, removal: Removal) -> list[str]:
    return [str(meta["name"]) for meta in _listed(door, kind, namespace, run, removal)]


def _listed(door: Door, kind: Kind, namespace: str, run: str, removal: Removal) -> list[dict[str, Any]]:
    """The metadata of what bears the run's label."""
    try:
        answer: dict[str, Any] = door.call(
            "GET",
            kind.path(namespace),
            kind.call("list", namespace),
            query={"labelSelector": selector(run)},
            accept=METADATA,
        )
    except Refused as error:
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


def _delete(door: Door, kind: Kind, namespace: str, name: str, grace: int | None, removal: Removal) -> None:
    query: dict[str, object] = {"propagationPolicy": "Background"}
    if grace is not None:
        query["gracePeriodSeconds"] = grace
    try:
        door.call("DELETE", kind.path(namespace, name), kind.call("delete", namespace, name), query=query)
    except Refused as error:
        if error.status != 404:
            removal.problems.append(str(error))
