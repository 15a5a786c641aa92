"""Which runs a namespace has: found by their label, each by the one object that it is known by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchnet.errors import ClusterError, UsageError
from torchnet.names import RUN_LABEL
from torchnet.network.text import listed, printable
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.facts import Facts, facts
from torchnet.runtimes.kubernetes.refused import Call, Refused
from torchnet.runtimes.kubernetes.resources import JOB, JOBSET, POD, selector

Object = dict[str, Any]


@dataclass(frozen=True)
class Survey:
    """By run: the JobSet, the Job or the first pod that it is known by.

    ``hidden`` are runs of which only what their JobSet has made may be looked at; ``unseen`` is why (None where JobSets
    may be looked at, or the cluster knows none).
    """

    namespace: str
    found: Mapping[str, Object]
    hidden: Mapping[str, Object]
    unseen: Refused | None = None

    @property
    def names(self) -> list[str]:
        return sorted({*self.found, *self.hidden})

    @property
    def remark(self) -> str:
        """What a list of the runs has to say of those that may be missing; "" where none can be."""
        return f"JobSets could not be looked at: {self.unseen}" if self.unseen else ""

    def missing(self, run: str) -> UsageError | ClusterError:
        """The error for a run that is not ``found``."""
        name = printable(run, 80)
        if self.unseen and run in self.hidden:
            text = (
                f"the run {name} could not be looked at, but for what its JobSet has made: {self.unseen.text}"
            )
            return ClusterError(text, fix=self.unseen.fix)
        return self._none(f"there is no run {name} in namespace", f"torchnet status -n {self.namespace}")

    def only(self) -> str:
        """The name of the only run.

        Raises:
            UsageError: there is none, or there are several.
        """
        if not self.names:
            raise self._none("there is no run in namespace", "-n ANOTHER, or torchnet launch …")
        if len(self.names) > 1:
            raise UsageError(
                f"there are {len(self.names)} runs in namespace {self.namespace}: {listed(self.names, limit=20)}",
                fix="name one of them",
            )
        return self.names[0]

    def _none(self, text: str, fix: str) -> UsageError:
        if self.unseen is None:
            return UsageError(f"{text} {self.namespace}", fix=fix)
        more = f"that could be looked at; JobSets could not: {self.unseen.text}"
        return UsageError(f"{text} {self.namespace} {more}", fix=self.unseen.fix)


def survey(door: Door, namespace: str, run: str | None = None) -> Survey:
    """All runs, or what there is of this one.

    Raises:
        ClusterError: jobs or pods may not be listed, or the server cannot be reached.
    """
    found: dict[str, Object] = {}
    hidden: dict[str, Object] = {}
    unseen = None
    for kind in (JOBSET, JOB, POD):
        query = {"labelSelector": selector(run) if run else RUN_LABEL}
        try:
            answer = door.call("GET", kind.path(namespace), kind.call("list", namespace), query=query)
        except Refused as error:
            if kind is not JOBSET or error.status not in (403, 404):
                raise
            # The built-in roles know nothing of JobSets, and rights are asked for before it is known what there is.
            unseen = error if error.status == 403 and _has_jobsets(door) else None
            continue
        for item in answer.get("items") or ():
            item |= {"apiVersion": kind.api, "kind": kind.name}
            name = str((item["metadata"].get("labels") or {}).get(RUN_LABEL))
            maker = _maker(item)
            if not maker:
                found.setdefault(name, item)
            elif maker == JOBSET.name and unseen:
                hidden.setdefault(name, item)
    return Survey(
        namespace, found, {name: item for name, item in hidden.items() if name not in found}, unseen
    )


def find(door: Door, namespace: str, run: str | None) -> Facts:
    """The run of this name; without one, the only run that there is.

    Raises:
        UsageError: there is none, or there are several.
        ClusterError: it may not be looked at.
    """
    there = survey(door, namespace, run)
    name = there.only() if run is None else run
    if name not in there.found:
        raise there.missing(name)
    return facts(there.found[name])


def _maker(item: Object) -> str:
    """The kind that has made it: a JobSet's Jobs and a Job's pods bear the run's label, too."""
    owners = item["metadata"].get("ownerReferences") or ()
    return next((str(owner.get("kind")) for owner in owners if owner.get("controller")), "")


def _has_jobsets(door: Door) -> bool:
    """Whether the cluster knows the kind, which everybody may ask for."""
    try:
        door.call("GET", f"/apis/{JOBSET.api}", Call("get", JOBSET.api))
    except Refused as error:
        return error.status != 404
    return True
