"""Why workers do not start: the workload's state, Events and container states, reported once per change.

Threads of their own read the workload and the Events at intervals, and only while they are needed. What this user
may not read is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torchnet.errors import ClusterError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.kinds import EVENT, POD
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.suspension import Suspension, suspension
from torchnet.k8s.run.worker_set import WorkerStatus, seconds

_LISTED = 16  # up to this many workers with the same reason are listed; more are summed up in one line
_PULLING = "Pulling"
# Events of the cluster autoscaler and of Karpenter: a node is added for the pod.
_NEW_NODE = ("TriggeredScaleUp", "Nominated")
_ORDINARY_SECONDS, _ERROR_SECONDS = 5.0, 1.0  # how long a reason holds before it is reported
_LONGEST = 400  # characters of a reason
# Event reasons of the kubelet and the controllers during retries, which the pod's status does not show.
_TELLING = (
    "FailedCreatePodSandBox",
    "FailedCreate",
    "FailedMount",
    "FailedAttachVolume",
    "NoNetworkFound",
    "Pulling",
    *_NEW_NODE,
)


class PendingReasons:
    """Turns states into lines for the console, and remembers which were reported."""

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._reported: dict[str, str] = {}
        self._since: dict[str, tuple[str, float]] = {}

    def lines(
        self,
        workers: Mapping[int, WorkerStatus],
        event_texts: Mapping[str, str],
        queued: str,
        now: float,
        *,
        replaced: Mapping[int, str] | None = None,
    ) -> list[str]:
        """New lines for workers that have not started.

        Args:
            event_texts: texts of Events, by the name of the pod or the workload.
            queued: why the whole run waits in a queue; "" if it does not.
            now: seconds of any clock.
            replaced: by rank, why it has no pod now, if known.
        """
        reasons = self.reasons(workers, event_texts, queued, replaced=replaced)
        failing = {
            self._info.node(rank)
            for rank, one in workers.items()
            if one.failing or event_texts.get(one.pod, _PULLING).partition(":")[0] != _PULLING
        }
        failing |= (
            {self._info.run}
            if queued or {self._info.name, self._info.pod_creator} & event_texts.keys()
            else set()
        )
        grouped: dict[str, list[str]] = {}
        for name, why in reasons.items():
            before, since = self._since.get(name, ("", now))
            if before != why:
                since = now
            self._since[name] = why, since
            held = now - since >= (_ERROR_SECONDS if name in failing else _ORDINARY_SECONDS)
            if held and self._reported.get(name) != why:
                self._reported[name] = why
                grouped.setdefault(why, []).append(name)
        out = []
        for why, group in grouped.items():
            if len(group) > _LISTED:
                out.append(f"{group[0]} and {len(group) - 1} more workers: {why}")
            else:
                out += [f"{name}: {why}" for name in group]
        return out

    def reasons(
        self,
        workers: Mapping[int, WorkerStatus],
        event_texts: Mapping[str, str],
        queued: str,
        *,
        replaced: Mapping[int, str] | None = None,
    ) -> dict[str, str]:
        """By worker name, why it has not started; by the run's name, if the reason concerns all workers."""
        if queued:
            return {self._info.run: queued}
        found: dict[str, str] = {}
        absent = [rank for rank in range(self._info.nnodes) if rank not in workers]
        if absent:
            event_text = event_texts.get(self._info.pod_creator) or event_texts.get(self._info.name)
            why = event_text or "has no pod yet"
            last = {rank: text for rank, text in (replaced or {}).items() if rank in absent}
            if len(absent) == self._info.nnodes and self._info.nnodes > 1 and not last:
                found[self._info.run] = f"no pod yet{': ' + event_text if event_text else ''}"
            else:
                names = {rank: self._info.node(rank) for rank in absent}
                found |= {name: last.get(rank, why).removeprefix(f"{name}: ") for rank, name in names.items()}
        for rank, one in workers.items():
            if one.started or one.ended:
                continue
            why = one.why
            text = event_texts.get(one.pod, "")
            added = one.stage == "unscheduled" and text.partition(":")[0] in _NEW_NODE
            if one.stage in ("creating", "unscheduled") and text and (added or not one.failing):
                why = text  # but an error in the status says more than the Events
            found[self._info.node(rank)] = " ".join(why.split())[:_LONGEST]
        return found


def cold_start(workers: Mapping[int, WorkerStatus], event_texts: Mapping[str, str]) -> str:
    """What a cold cluster still prepares for these workers: "images" or "new nodes"; "" if nothing is known."""
    waiting = [one for one in workers.values() if not one.started and one.ended is None]
    reasons = {one.pod: event_texts.get(one.pod, "").partition(":")[0] for one in waiting}
    if any(one.stage == "unscheduled" and reasons[one.pod] in _NEW_NODE for one in waiting):
        return "new nodes"
    pulls = [one for one in waiting if one.stage == "creating" and not one.failing]
    return "images" if any(one.pulls or reasons[one.pod] == _PULLING for one in pulls) else ""


def latest_event_texts(
    events: Iterable[Mapping[str, Any]], uids: Mapping[str, str] | None = None, *, since: float = 0.0
) -> dict[str, str]:
    """By object name, the newest text that says why workers do not start, from a list of Events.

    Args:
        uids: the objects' UIDs by name, where known. An earlier run may have used a name: Events are kept for an hour.
        since: unix time; for objects without a known UID, older Events are ignored.
    """
    newest: dict[str, tuple[float, str]] = {}
    for event in events:
        if event.get("reason") not in _TELLING:
            continue
        about = event.get("involvedObject") or {}
        name, uid = str(about.get("name") or ""), about.get("uid")
        meta = event.get("metadata") or {}
        stamp = event.get("lastTimestamp") or event.get("eventTime") or meta.get("creationTimestamp")
        text = f"{event['reason']}: {' '.join(str(event.get('message') or '').split())}"
        at = seconds(stamp)
        known_uid = (uids or {}).get(name)
        if (uid != known_uid) if known_uid and uid else at < since:
            continue
        if name and (name not in newest or at >= newest[name][0]):
            newest[name] = (at, _stable(text))
    return {name: text for name, (_, text) in newest.items()}


def _stable(text: str) -> str:
    """Remove sandbox IDs, which change with each try, so that the same reason is reported once."""
    words = [word for word in text.split(" ") if not _is_id(word.strip('"():,'))]
    return " ".join(words)


def _is_id(word: str) -> bool:
    return len(word) == 64 and all(letter in "0123456789abcdef" for letter in word)


POLL_SECONDS = 2.0  # seconds between two reads
_AT_ONCE = 0.1  # the same if a decision waits for the read
# The API server sorts Events by name, not by age, so those of this run may be on any page. Further pages are not read:
# a namespace with more than 10,000 warnings has other problems.
_PAGE, _PAGES = 500, 20


class WorkloadStatus:
    """The state of a run's workload and its Events, read in the background.

    For one thread, which never waits: answers come from the last read, and further reads run in the background.
    """

    def __init__(self, client: ApiClient, info: RunInfo) -> None:
        self._client, self._info = client, info
        self._lock = threading.Lock()
        self._workload: dict[str, Any] | None = None
        self._gone = False
        self._event_texts: dict[str, str] = {}
        self._uids: dict[str, str] = {}
        self._unscheduled = False
        self._forbidden: set[str] = set()
        self._requested_at: dict[str, float] = {}
        self._busy: set[str] = set()
        self._changes = self._read_at = 0
        self.unreadable: ClusterError | None = None
        """Why the workload cannot be read; None if it can."""

    def read_since(self, changes: int) -> bool:
        """Whether the workload was read after this many changes of the pods; if not, starts to read it.

        True for plain pods, and for a workload that cannot be read.
        """
        if self._info.kind is POD or self._read_at >= changes:
            return True
        self._changes = changes
        self._refresh("workload", every=_AT_ONCE)
        return self.unreadable is not None

    def suspension(self) -> Suspension:
        """The suspension at the last read; a suspended workload is read again."""
        with self._lock:
            found = suspension(None if self._gone else self._workload)
        if found.active:
            self._refresh("workload")
        return found

    def queued(self, workers: Mapping[int, WorkerStatus]) -> str:
        """Why the whole run waits in a queue; "" if it does not."""
        found = self.suspension()
        if len(workers) < self._info.nnodes:
            self._refresh("workload")
        if found.active and not any(one.started for one in workers.values()):
            return ("queued: " if found.queue else "") + found.reason(self._info.kind.name)
        gated = [one for one in workers.values() if one.stage == "queued"]
        if gated and not any(one.stage != "queued" for one in workers.values()):
            return gated[0].why
        return ""

    def event_texts(self, workers: Mapping[int, WorkerStatus]) -> dict[str, str]:
        """The newest Event texts about this run's objects, by object name."""
        uids = {self._info.name: self._info.uid} if self._info.uid else {}
        with self._lock:
            self._uids = uids | {one.pod: one.uid for one in workers.values()}
            self._unscheduled = any(one.stage == "unscheduled" for one in workers.values())
        self._refresh("events")
        with self._lock:
            return dict(self._event_texts)

    def over(self) -> bool:
        """Whether the workload has completed, failed, or been deleted."""
        self._refresh("workload", every=0.5)
        return self._condition("Completed", "Complete", "Failed") or self.gone()

    def failed(self) -> bool:
        """Whether the workload's status has the condition Failed."""
        self._refresh("workload", every=0.5)
        return self._condition("Failed")

    def gone(self) -> bool:
        """Whether the workload has been deleted; always False for plain pods, which the watch reports."""
        self._refresh("workload")
        with self._lock:
            return self._gone

    @property
    def restarts(self) -> int:
        """How often the cluster had restarted the workers at the last read."""
        with self._lock:
            status = (self._workload or {}).get("status") or {}
        count = status.get("restarts", 0)
        return count if isinstance(count, int) and count > 0 else 0

    @property
    def restarts_left(self) -> bool:
        """Whether the cluster would restart the workers again; True until the workload has been read."""
        with self._lock:
            if self._workload is None:
                return True
            spec = self._workload.get("spec") or {}
        limit = (spec.get("failurePolicy") or {}).get("maxRestarts") or 0
        return isinstance(limit, int) and self.restarts < limit

    def _condition(self, *kinds: str) -> bool:
        with self._lock:
            status = (self._workload or {}).get("status") or {}
        return any(
            one.get("type") in kinds and one.get("status") == "True" for one in status.get("conditions") or ()
        )

    def _refresh(self, what: str, every: float | None = None) -> None:
        every = POLL_SECONDS if every is None else every
        now = time.monotonic()
        if what in self._busy or what in self._forbidden or now - self._requested_at.get(what, -1e9) < every:
            return
        self._requested_at[what] = now
        self._busy.add(what)
        action = self._read_workload if what == "workload" else self._read_events

        def work() -> None:
            try:
                action()
            except ApiUnreachable:
                pass  # the watch reports an API server that does not respond
            except ClusterError as error:
                if what == "workload":
                    self.unreadable = error
                if isinstance(error, ApiRefusal) and error.status in (401, 403):
                    self._forbidden.add(what)
            finally:
                self._busy.discard(what)

        try:
            threading.Thread(target=work, name=f"read the {what}", daemon=True).start()
        except RuntimeError:  # the machine allows no more threads: the next call tries again
            self._busy.discard(what)
            del self._requested_at[what]

    def _read_workload(self) -> None:
        kind, namespace, name = self._info.kind, self._info.namespace, self._info.name
        if kind is POD:
            return
        changes = self._changes
        try:
            found: dict[str, Any] | None = self._client.call(
                "GET", kind.path(namespace, name), kind.call("get", namespace, name)
            )
        except ApiRefusal as error:
            if error.status != 404:
                raise
            found = None
        with self._lock:
            self._gone = found is None
            if found is not None:
                self._workload = found
            self._read_at = max(self._read_at, changes)
            self.unreadable = None

    def _read_events(self) -> None:
        with self._lock:
            uids, unscheduled = self._uids, self._unscheduled
        fields = [f"reason={_PULLING}", "type=Warning"]
        fields += [f"reason={reason}" for reason in _NEW_NODE] if unscheduled else []
        events = [one for field in fields for one in self._events(field)]
        # Events of other runs are included; their names are never looked up.
        event_texts = latest_event_texts(events, uids, since=self._info.created)
        with self._lock:
            self._event_texts = event_texts

    def _events(self, field: str) -> Iterator[dict[str, Any]]:
        namespace, rest = self._info.namespace, ""
        for _ in range(_PAGES):
            query: dict[str, object] = {"fieldSelector": field, "limit": _PAGE}
            query |= {"continue": rest} if rest else {}
            try:
                answer = self._client.call(
                    "GET", EVENT.path(namespace), EVENT.call("list", namespace), query=query
                )
            except ApiRefusal as error:
                if error.status == 410 and rest:
                    return  # the continue token has expired; the pages read so far count until the next read
                raise
            yield from answer.get("items") or ()
            rest = str((answer.get("metadata") or {}).get("continue") or "")
            if not rest:
                return
