"""Attempts of a run: a suspension ends one attempt, and the next one begins when the workload is resumed.

The watch on the pods does not report why a pod ends. Whenever one ends or is deleted, the workload is therefore read
before anything is decided: pods that a suspension has deleted say nothing about the outcome of the job.
"""

from __future__ import annotations

from collections.abc import Callable

from torchnet.k8s.client.kinds import POD
from torchnet.k8s.run.pending import WorkloadStatus
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.suspension import Suspension, evicted
from torchnet.k8s.run.worker_set import WorkerSet
from torchnet.text import listed

_READ_SECONDS = 1.0  # how long further pod changes wait for one read of the workload


class Attempts:
    """Tracks suspensions, resumptions and evictions of one run.

    Args:
        warn: receives a line when the run is suspended, resumed or evicted, or when its suspension cannot be read.
    """

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
        """Why a queue has evicted the plain pods; "" if it has not. No controller recreates them."""
        self.evicted_at = 0.0
        """Monotonic time at which the eviction was seen."""

    @property
    def paused(self) -> bool:
        """Whether the pods' states allow no conclusion: workload unread or suspended, or pods evicted."""
        return self._unread is not None or self._suspended or bool(self.evicted)

    @property
    def eviction(self) -> str:
        """The message with which a launcher leaves an evicted run."""
        return (
            f"evicted by its queue ({self.evicted}). Nothing creates plain pods again, so the run is over; "
            "torchnet has removed nothing of it. A queue can requeue a run with --as job or --as jobset"
        )

    def reading(self, now: float) -> bool:
        """Whether a read of the workload is pending; False once it has taken longer than a second."""
        return self._unread is not None and now - self._unread < _READ_SECONDS

    def update(self, now: float) -> bool:
        """Evaluate the current state of the pods and the workload.

        Returns:
            Whether an attempt has ended. Its pods no longer count as workers.
        """
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
        """Warn of workers that had ended before the suspension.

        Their pods are not created again, so the next attempt cannot start.
        """
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
