"""Attempts of a run: a suspension ends one attempt, and the next one begins when the workload is resumed.

The watch on the pods does not report why a pod ends. Whenever one ends or is deleted, the workload is therefore read
before anything is decided: pods that a suspension has deleted say nothing about the outcome of the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from torchnet.agent.events import Failure
from torchnet.constants import STOPPED_CODE
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.suspension import Suspension, evicted
from torchnet.k8s.run.worker_set import WorkerSet
from torchnet.k8s.run.workload_status import WorkloadStatus
from torchnet.text import listed

_READ_SECONDS = 1.0  # how long further pod changes wait for one read of the workload


class Attempts:
    """Tracks suspensions, resumptions and evictions of one run.

    Args:
        warn: receives a line when the run is suspended, resumed or evicted, or when its suspension cannot be read.
        number: returns the number of the current attempt.
        notice: receives a line once the number of the first attempt that is watched is known.
    """

    def __init__(
        self,
        info: RunInfo,
        worker_set: WorkerSet,
        workload_status: WorkloadStatus,
        warn: Callable[[str], None],
        number: Callable[[], int],
        notice: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._number, self._notice = number, notice
        self._info, self._worker_set, self._workload_status, self._warn = (
            info,
            worker_set,
            workload_status,
            warn,
        )
        self._last_state: tuple[int, Suspension] = 0, Suspension()
        self._read_requested_at: float | None = None
        self._suspended = False
        self._resume_time = 0.0
        self._unreadable = False
        self._count = 0
        self._is_counted = False  # whether the attempt that the present suspension ends was counted
        self._counted = -1.0  # the resumption that closed the suspension that was counted last
        self._earlier = 0  # attempts that suspensions had ended before this launcher saw the run
        self._evictions: tuple[int | None, bool] | None = None  # the queue's count, until it is taken
        self.knows_number = True
        """Whether the number of the attempt is known. If not, only the attempts are counted that were seen."""
        self.ended_uids: frozenset[str] = frozenset()
        """The UIDs of the pods of the attempt that ended last."""
        self.evicted = ""
        """Why a queue has evicted the plain pods; "" if it has not. No controller recreates them."""

    @property
    def paused(self) -> bool:
        """Whether the pods' states allow no conclusion: workload unread or suspended, or pods evicted."""
        return self._read_requested_at is not None or self._suspended or bool(self.evicted)

    @property
    def suspensions(self) -> int:
        """How many attempts suspensions have ended."""
        return self._earlier + self._count

    def set_evictions(self, count: int | None, *, is_evicted: bool) -> None:
        """Set how many attempts a queue has ended, for a launcher that did not see all of them.

        Args:
            count: by the queue's own count, which includes attempts that were seen to end; None if it is not known.
            is_evicted: the queue has evicted the run. If its pods still run, they are seen to end later.
        """
        self._evictions = count, is_evicted

    def _take_evictions(self) -> None:
        if self._evictions is None:
            return
        (count, is_evicted), self._evictions = self._evictions, None
        self.knows_number = count is not None
        running = any(one.ended is None for one in self._worker_set.workers().values())
        uncounted = is_evicted and running and not self._is_counted
        self._earlier = max(0, (count or 0) - self._count - uncounted)
        if count is not None and self._number() > 1:
            self._notice(f"{self._info.run}: this is attempt {self._number()}")

    def name(self, number: int) -> str:
        """How messages name the attempt with this number."""
        return f"attempt {number}" if self.knows_number else "the next attempt"

    @property
    def eviction(self) -> str:
        """The message with which a launcher leaves an evicted run; "" if its queue has not evicted it."""
        return self.evicted and (
            f"evicted by its queue ({self.evicted}). No controller recreates plain pods, so the run has ended; its "
            "objects stay on the cluster. A queue can requeue a run with --kind job or --kind jobset"
        )

    def failure(self, number: int, why: str) -> Failure:
        """Why a suspension has ended the attempt with this number; ``why`` is the queue's reason, "" if unknown."""
        name = f"attempt {number}" if self.knows_number else "the attempt"
        text = f"{name} was suspended" + (f" by its queue: {why}" if why else "")
        return Failure("interrupted", text, STOPPED_CODE, at=time.time())

    def deletion(self) -> Failure | None:
        """That somebody else has deleted the Job or JobSet, if that is why there are no workers."""
        if self._worker_set.workers() or self._info.kind is POD or not self._workload_status.gone():
            return None
        what = "it" if self._number() == 1 else self.name(self._number())
        text = f"the {self._info.kind.name} was deleted before {what} started"
        return Failure("interrupted", text, STOPPED_CODE, at=time.time())

    def reading(self, now: float) -> bool:
        """Whether a read of the workload is pending; False once it has taken longer than a second."""
        return self._read_requested_at is not None and now - self._read_requested_at < _READ_SECONDS

    def update(self, now: float) -> bool:
        """Evaluate the current state of the pods and the workload.

        Returns:
            Whether an attempt has ended. Its pods no longer count as workers.
        """
        departures = self._worker_set.departures
        if not self._workload_status.read_since(departures):
            self._read_requested_at = now if self._read_requested_at is None else self._read_requested_at
            return False
        self._read_requested_at = None
        found = self._workload_status.suspension()
        if departures and self._workload_status.unreadable and not self._unreadable:
            self._unreadable = True
            self._warn(
                f"cannot determine whether {self._info.run} is suspended: {self._workload_status.unreadable}\n"
                "  the end of its pods counts as the end of the job"
            )
        if (departures, found) == self._last_state:
            self._take_evictions()
            return False
        self._last_state = departures, found
        pods = self._worker_set.seen()
        if self._info.kind is POD and not self.evicted and (why := evicted(pod for pod, _ in pods)):
            self.evicted = why
            self._warn(f"the queue evicted {self._info.run} ({why}); its pods are being deleted")
        uids = [pod["metadata"]["uid"] for pod, gone in pods if found.ended(pod, gone=gone)]
        new = self._worker_set.forget(uids)
        self._count_suspension(found, new)
        self._take_evictions()
        self._report(found, departures, ended=bool(new))
        return bool(new)

    def _count_suspension(self, found: Suspension, uids: frozenset[str]) -> None:
        """Count an attempt that ends, once: its pods do not end at the same time, some only after the resumption."""
        known = self._is_counted if found.active else self._is_counted or found.resumed == self._counted
        if uids:
            self.ended_uids = self.ended_uids | uids if known else uids
            self._count += not known
        self._is_counted = found.active and (known or bool(uids))
        if not found.active and (uids or self._suspended):
            self._counted = found.resumed

    def _warn_of_finished_workers(self) -> None:
        """Warn of workers that had ended before the suspension.

        Their pods are not created again, so the next attempt cannot start.
        """
        finished = [rank for rank, one in self._worker_set.workers().items() if one.ended is not None]
        if finished:
            names = listed([self._info.node(rank) for rank in finished])
            self._warn(
                f"{names} ended before the suspension and cannot restart, so the next attempt cannot start\n"
                f"  fix: torchnet down {self._info.command}, then launch the job again"
            )

    def _report(self, found: Suspension, departures: int, *, ended: bool) -> None:
        kind, before = self._info.kind.name, self._suspended
        self._suspended = found.active and departures > 0
        if self._suspended and not before:
            self._warn(f"{found.reason(kind)}; its pods are deleted; waiting for the next attempt")
        elif not found.active and (before or ended) and found.resumed > self._resume_time:
            self._resume_time = found.resumed
            self._warn(f"the {kind} is resumed: {self.name(self._number())} starts")
            self._warn_of_finished_workers()
