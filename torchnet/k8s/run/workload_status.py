"""The state of a run's workload and the Events about it, while they matter."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from torchnet.errors import ClusterError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.backoff import Backoff
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.run.event_texts import RunEvents
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.suspension import Suspension, suspension
from torchnet.k8s.run.worker_set import WorkerStatus

POLL_SECONDS = 2.0  # seconds between two reads
END_SECONDS = 0.5  # the same if the workload may be over
_LONGEST_SECONDS = 10.0  # the same at most: the interval doubles with each read that brings nothing new
# The same if a decision waits for the read; at most a second, when many workers end one after another.
_AT_ONCE, _LONGEST_AT_ONCE = 0.1, 1.0
_CALM_SECONDS = 5.0  # without such a read, before the next one is at once again


class WorkloadStatus:
    """The state of a run's workload and its Events, read in the background.

    For one thread, which never waits: answers come from the last read, and further reads run in the background.
    """

    def __init__(self, client: ApiClient, info: RunInfo) -> None:
        self._client, self._info = client, info
        self._lock = threading.Lock()
        self._workload: dict[str, Any] | None = None
        self._gone = False
        self._events = RunEvents(client, info.namespace)
        self._at_once = Backoff(_AT_ONCE, _LONGEST_AT_ONCE)
        self._pause = 0.0  # before the next read that a decision waits for
        self._unchanged = 0  # reads that have brought nothing new, since something has changed
        self._forbidden = self._busy = False
        self._requested_at = float("-inf")
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
        self._unchanged = 0
        if time.monotonic() - self._requested_at > _CALM_SECONDS:
            self._at_once.reset()
            self._pause = 0.0
        if self._refresh(self._pause):
            self._pause = self._at_once.next()
        return self.unreadable is not None

    def expect_change(self) -> None:
        """Read the workload at short intervals again, because its pods have changed."""
        self._unchanged = 0

    def suspension(self) -> Suspension:
        """The suspension at the last read; a suspended workload is read again."""
        with self._lock:
            found = suspension(None if self._gone else self._workload)
        if found.active:
            self._refresh_later(POLL_SECONDS)
        return found

    def queued(self, workers: Mapping[int, WorkerStatus]) -> str:
        """Why the whole run waits in a queue; "" if it does not."""
        found = self.suspension()
        if len(workers) < self._info.nnodes:
            self._refresh_later(POLL_SECONDS)
        if found.active and not any(one.started for one in workers.values()):
            return ("queued: " if found.queue else "") + found.reason(self._info.kind.name)
        gated = [one for one in workers.values() if one.stage == "queued"]
        if gated and not any(one.stage != "queued" for one in workers.values()):
            return gated[0].why
        return ""

    def event_texts(self, workers: Mapping[int, WorkerStatus]) -> dict[str, str]:
        """The newest Event texts about this run's objects, by object name."""
        uids = {self._info.name: self._info.uid} if self._info.uid else {}
        return self._events.texts(
            uids | {one.pod: one.uid for one in workers.values()},
            since=self._info.created,
            unscheduled=any(one.stage == "unscheduled" for one in workers.values()),
        )

    def stop_events(self) -> None:
        """Watch no more Events, once all workers have started."""
        self._events.stop()

    def over(self) -> bool:
        """Whether the workload has completed, failed, or been deleted."""
        self._refresh_later(END_SECONDS)
        return self._condition("Completed", "Complete", "Failed") or self.gone()

    def failed(self) -> bool:
        """Whether the workload's status has the condition Failed."""
        self._refresh_later(END_SECONDS)
        return self._condition("Failed")

    def gone(self) -> bool:
        """Whether the workload has been deleted; always False for plain pods, which the watch reports."""
        self._refresh_later(POLL_SECONDS)
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

    def _refresh_later(self, every: float) -> None:
        """Read the workload unless that was done within ``every`` seconds, or longer ones while nothing changes."""
        self._refresh(min(every * 2.0**self._unchanged, max(every, _LONGEST_SECONDS)))

    def _refresh(self, every: float) -> bool:
        """Begin to read the workload unless that was done within ``every`` seconds; return whether it was begun."""
        now = time.monotonic()
        if self._busy or self._forbidden or self._info.kind is POD or now - self._requested_at < every:
            return False
        before, self._requested_at, self._busy = self._requested_at, now, True
        try:
            threading.Thread(target=self._work, name="read the workload", daemon=True).start()
        except RuntimeError:  # the machine allows no more threads: the next call tries again
            self._requested_at, self._busy = before, False
            return False
        return True

    def _work(self) -> None:
        try:
            self._read_workload()
        except ApiUnreachable:
            pass  # the watch reports an API server that does not respond
        except ClusterError as error:
            self.unreadable = error
            self._unchanged = min(10, self._unchanged + 1)
            # Rights that existed before may come back.
            is_refused = isinstance(error, ApiRefusal) and error.status in (401, 403)
            self._forbidden = is_refused and self._workload is None
        finally:
            self._busy = False

    def _read_workload(self) -> None:
        kind, namespace, name = self._info.kind, self._info.namespace, self._info.name
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
            is_new = found != (None if self._gone else self._workload)
            self._unchanged = 0 if is_new else min(10, self._unchanged + 1)
            self._gone = found is None
            if found is not None:
                self._workload = found
            self._read_at = max(self._read_at, changes)
            self.unreadable = None
