"""Attempts of a run: a suspension ends one, and the next begins when the workload is resumed.

The pods' watch does not tell why pods end. So the workload is read after each such change, before anything follows from
it: pods that a suspension has deleted say nothing of the job.
"""

from __future__ import annotations

from collections.abc import Callable

from torchnet.k8s.client.kinds import POD
from torchnet.k8s.run.pending import WorkloadStatus
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.suspension import Suspension, evicted
from torchnet.k8s.run.worker_set import WorkerSet
from torchnet.text import listed

_READ_SECONDS = 1.0  # for one read of the workload, in which further changes of the pods wait


class Attempts:
    """``warn`` gets a line when the run is suspended, and when it is resumed."""

    def __init__(
        self, facts: RunInfo, gang: WorkerSet, look: WorkloadStatus, warn: Callable[[str], None]
    ) -> None:
        self._facts, self._gang, self._look, self._warn = facts, gang, look, warn
        self._known: tuple[int, Suspension] = 0, Suspension()
        self._unread: float | None = None
        self._suspended = False
        self._resumed = 0.0
        self._unreadable = False
        self.evicted = ""
        """Why a queue has evicted the plain pods; nobody creates others."""
        self.evicted_at = 0.0
        """When that was seen (monotonic)."""

    @property
    def paused(self) -> bool:
        """Whether nothing can be concluded from the pods now."""
        return self._unread is not None or self._suspended or bool(self.evicted)

    @property
    def eviction(self) -> str:
        """Why a launcher leaves an evicted run."""
        return (
            f"evicted by its queue ({self.evicted}). Nothing creates plain pods again, so the run is over; "
            "torchnet has removed nothing of it. A queue can requeue a run with --as job or --as jobset"
        )

    def reading(self, now: float) -> bool:
        """Whether the workload is being read; false for an API server that takes long."""
        return self._unread is not None and now - self._unread < _READ_SECONDS

    def update(self, now: float) -> bool:
        """Take what is known of pods and workload; whether that ended an attempt, whose pods are left out from now."""
        departures = self._gang.departures
        if not self._look.read_since(departures):
            self._unread = now if self._unread is None else self._unread
            return False
        self._unread = None
        found = self._look.suspension()
        if departures and self._look.unreadable and not self._unreadable:
            self._unreadable = True
            self._warn(
                f"whether {self._facts.run} is suspended cannot be known: {self._look.unreadable}\n"
                f"  pods that end count as the job's end"
            )
        if (departures, found) == self._known:
            return False
        self._known = departures, found
        pods = self._gang.seen()
        if self._facts.kind is POD and not self.evicted and (why := evicted(pod for pod, _ in pods)):
            self.evicted, self.evicted_at = why, now
            self._warn(f"its queue has evicted {self._facts.run} ({why}); its pods are being deleted")
        ended = self._gang.forget(pod["metadata"]["uid"] for pod, gone in pods if found.ended(pod, gone=gone))
        self._tell(found, departures, ended=ended)
        return ended

    def _warn_of_finished_workers(self) -> None:
        """A worker that had ended before the suspension is not created again: the next attempt waits for it in vain."""
        finished = [rank for rank, one in self._gang.workers().items() if one.ended is not None]
        if finished:
            names = listed([self._facts.node(rank) for rank in finished])
            self._warn(
                f"{names} had ended before the suspension and will not start again, so the next attempt cannot start\n"
                f"  fix: torchnet down {self._facts.command}, and launch it anew"
            )

    def _tell(self, found: Suspension, departures: int, *, ended: bool) -> None:
        kind, before = self._facts.kind.name, self._suspended
        self._suspended = found.active and departures > 0
        if self._suspended and not before:
            self._warn(f"{found.reason(kind)}; its pods are deleted; waiting for the next attempt")
        elif not found.active and (before or ended) and found.resumed > self._resumed:
            self._resumed = found.resumed
            self._warn(f"the {kind} was suspended and is resumed: the next attempt starts")
            self._warn_of_finished_workers()
