"""Looks at what the pods' watch does not tell: the workload itself, and the events that say why a pod does not start.

Asked for in a thread of its own, every few seconds and only while it matters; what may not be read is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from torchnet.errors import ClusterError
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.pods import Worker
from torchnet.runtimes.kubernetes.refused import Refused, Unreachable
from torchnet.runtimes.kubernetes.resources import EVENT, POD
from torchnet.runtimes.kubernetes.suspension import Suspension, suspension
from torchnet.runtimes.kubernetes.waiting import events_told

_EVERY = 2.0  # seconds
_AT_ONCE = 0.1  # seconds between two reads of the workload that a decision waits for
# The API server gives events by their names, not by their age: the own ones may be on any page. Beyond these pages (of
# warnings alone, 10,000) nothing is looked at: a namespace in such a state has other worries.
_PAGE, _PAGES = 500, 20


class Look:
    """For one thread, which never waits: answers are those of the last look."""

    def __init__(self, door: Door, facts: Facts) -> None:
        self._door, self._facts = door, facts
        self._lock = threading.Lock()
        self._workload: dict[str, Any] | None = None
        self._gone = False
        self._told: dict[str, str] = {}
        self._uids: dict[str, str] = {}
        self._forbidden: set[str] = set()
        self._asked: dict[str, float] = {}
        self._busy: set[str] = set()
        self._changes = self._read_at = 0
        self.unreadable: ClusterError | None = None
        """Why the workload cannot be read, where it cannot."""

    def read_since(self, changes: int) -> bool:
        """Whether the workload was read when the pods had had so many changes; else it is read now."""
        if self._facts.kind is POD or self._read_at >= changes:
            return True
        self._changes = changes
        self._ask("workload", every=_AT_ONCE)
        return self.unreadable is not None

    def suspension(self) -> Suspension:
        """As the workload was read last; one that is suspended is read again."""
        with self._lock:
            found = suspension(None if self._gone else self._workload)
        if found.active:
            self._ask("workload")
        return found

    def queued(self, workers: Mapping[int, Worker]) -> str:
        """Why the whole run waits in a queue; "" if it does not."""
        found = self.suspension()
        if len(workers) < self._facts.nnodes:
            self._ask("workload")
        if found.active and not any(one.started for one in workers.values()):
            return ("queued: " if found.queue else "") + found.reason(self._facts.kind.name)
        gated = [one for one in workers.values() if one.stage == "queued"]
        if gated and not any(one.stage != "queued" for one in workers.values()):
            return gated[0].why
        return ""

    def told(self, workers: Mapping[int, Worker]) -> dict[str, str]:
        """The newest warnings of this run's objects, by their names."""
        uids = {self._facts.name: self._facts.uid} if self._facts.uid else {}
        with self._lock:
            self._uids = uids | {one.pod: one.uid for one in workers.values()}
        self._ask("events")
        with self._lock:
            return dict(self._told)

    def over(self) -> bool:
        """Whether a workload that restarts its pods has come to its end."""
        self._ask("workload", every=0.5)
        return self._condition("Completed", "Complete", "Failed") or self.gone()

    def failed(self) -> bool:
        """Whether the workload itself says that it has failed."""
        self._ask("workload", every=0.5)
        return self._condition("Failed")

    def gone(self) -> bool:
        """Whether the workload has been deleted; never of plain pods, which the watch tells of."""
        self._ask("workload")
        with self._lock:
            return self._gone

    @property
    def restarts(self) -> int:
        """How often the cluster has started the gang again, as far as was looked."""
        with self._lock:
            status = (self._workload or {}).get("status") or {}
        count = status.get("restarts", 0)
        return count if isinstance(count, int) and count > 0 else 0

    @property
    def restarts_left(self) -> bool:
        """Whether the cluster would start the gang again, as far as was looked."""
        with self._lock:
            spec = (self._workload or {}).get("spec") or {}
        limit = (spec.get("failurePolicy") or {}).get("maxRestarts") or 0
        return isinstance(limit, int) and self.restarts < limit

    def _condition(self, *kinds: str) -> bool:
        with self._lock:
            status = (self._workload or {}).get("status") or {}
        return any(
            one.get("type") in kinds and one.get("status") == "True" for one in status.get("conditions") or ()
        )

    def _ask(self, what: str, every: float = _EVERY) -> None:
        now = time.monotonic()
        if what in self._busy or what in self._forbidden or now - self._asked.get(what, -1e9) < every:
            return
        self._asked[what] = now
        self._busy.add(what)
        action = self._look_at_workload if what == "workload" else self._look_at_events

        def work() -> None:
            try:
                action()
            except Unreachable:
                pass  # the watch tells of a cluster that does not answer
            except ClusterError as error:
                if what == "workload":
                    self.unreadable = error
                if isinstance(error, Refused) and error.status in (401, 403):
                    self._forbidden.add(what)
            finally:
                self._busy.discard(what)

        threading.Thread(target=work, name=f"look at {what}", daemon=True).start()

    def _look_at_workload(self) -> None:
        kind, namespace, name = self._facts.kind, self._facts.namespace, self._facts.name
        if kind is POD:
            return
        changes = self._changes
        try:
            found: dict[str, Any] | None = self._door.call(
                "GET", kind.path(namespace, name), kind.call("get", namespace, name)
            )
        except Refused as error:
            if error.status != 404:
                raise
            found = None
        with self._lock:
            self._gone = found is None
            if found is not None:
                self._workload = found
            self._read_at = max(self._read_at, changes)
            self.unreadable = None

    def _look_at_events(self) -> None:
        with self._lock:
            uids = self._uids
        events = [one for field in ("reason=Pulling", "type=Warning") for one in self._events(field)]
        # Other runs' pods are among them; nobody ever asks for their names.
        told = events_told(events, uids, since=self._facts.made)
        with self._lock:
            self._told = told

    def _events(self, field: str) -> Iterator[dict[str, Any]]:
        namespace, rest = self._facts.namespace, ""
        for _ in range(_PAGES):
            query: dict[str, object] = {"fieldSelector": field, "limit": _PAGE}
            query |= {"continue": rest} if rest else {}
            try:
                answer = self._door.call(
                    "GET", EVENT.path(namespace), EVENT.call("list", namespace), query=query
                )
            except Refused as error:
                if error.status == 410 and rest:
                    return  # the list has become too old to go on in; what there was counts until the next look
                raise
            yield from answer.get("items") or ()
            rest = str((answer.get("metadata") or {}).get("continue") or "")
            if not rest:
                return
