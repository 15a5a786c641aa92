"""The end of a run's objects: all that bears its label, what makes pods first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torchnet.runtimes.kubernetes.door import METADATA, Door
from torchnet.runtimes.kubernetes.pods import seconds
from torchnet.runtimes.kubernetes.refused import Refused
from torchnet.runtimes.kubernetes.resources import JOBSET, KINDS, POD, WORKLOADS, Kind, kind_of, selector

_PAUSE = 0.2
# Where workers are to end now: their nodes still get a second, and take the pods out themselves. A pod that is taken
# out without its node (0) gives its address back while it still has it, as Whereabouts watches the API: the next run's
# pod then fails its duplicate address detection. So that is left for nodes that say nothing for so long:
_NOW_SECONDS = 1
_FORCE_SECONDS = 12.0


@dataclass
class Removal:
    """``left``: objects that are still there, as KIND/NAME; ``problems``: why something could not be removed;
    ``unseen``: kinds that may not be listed, so that nothing is known of theirs."""

    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


def stop(door: Door, namespace: str, run: str, *, now: bool = False) -> Removal:
    """Delete the workload and its pods: SIGTERM, and SIGKILL when their own time is over (``now``: in a second)."""
    removal, grace = Removal(), _NOW_SECONDS if now else None
    for kind in WORKLOADS:
        if kind is POD:
            continue
        for name in _names(door, kind, namespace, run, removal):
            _delete(door, kind, namespace, name, None, removal)
    # Else the garbage collector would: later, and with the pods' own time.
    query: dict[str, object] = {"labelSelector": selector(run)}
    if grace is not None:
        query["gracePeriodSeconds"] = grace
    try:
        door.call("DELETE", POD.path(namespace), POD.call("deletecollection", namespace), query=query)
    except Refused as error:
        if error.status != 403:
            raise
        for name in _names(door, POD, namespace, run, removal):
            _delete(door, POD, namespace, name, grace, removal)
    return removal


def remove(
    door: Door,
    namespace: str,
    run: str,
    *,
    patience: float,
    now: bool = False,
    force: bool = False,
) -> Removal:
    """Delete everything of a run and wait until it is gone, or until the door's ``stop`` is set.

    ``patience``: the most seconds, beyond those that the pods get for their own end.

    With ``force``, pods that are still there 12 seconds after their time is over are taken out without their nodes'
    word: nothing more is to be heard of them.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    total = stop(door, namespace, run, now=now)
    for kind in KINDS:
        if kind not in WORKLOADS:
            for name in _names(door, kind, namespace, run, total):
                _delete(door, kind, namespace, name, None, total)
    began, own = time.monotonic(), 0.0
    while True:
        again = Removal()
        total.left = []
        for kind in KINDS:
            for meta in _listed(door, kind, namespace, run, again):
                total.left.append(f"{kind.plural}/{meta['name']}")
                if kind is not POD:  # made by a controller meanwhile
                    _delete(door, kind, namespace, meta["name"], None, again)
                    continue
                own = max(own, float(meta.get("deletionGracePeriodSeconds") or 0))
                if force and _overdue(meta):
                    _delete(door, POD, namespace, meta["name"], 0, again)
        if not total.left or time.monotonic() > began + own + patience or door.stop.is_set():
            return total
        door.stop.wait(_PAUSE)


def _overdue(meta: dict[str, Any]) -> bool:
    """Whether a pod has been given its time and more. Of a deleted pod the stamp is when its time is over."""
    stamp = seconds(meta.get("deletionTimestamp"))
    return bool(stamp) and time.time() > stamp + _FORCE_SECONDS


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
            options["gracePeriodSeconds"] = _NOW_SECONDS
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
