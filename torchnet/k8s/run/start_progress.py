"""The start of one attempt: what delays its workers, shown once per change, and its clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torchnet.k8s.client.kinds import POD
from torchnet.k8s.run.pending import PendingReasons, cold_start
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.start_clock import QUEUE, StartClock
from torchnet.k8s.run.worker_set import WorkerStatus
from torchnet.k8s.run.workload_status import WorkloadStatus

_EVENTS_SECONDS = 2.0  # before Events are watched: an ordinary start does not need them
_SECONDS_PER_WORKER = 1e-3  # between two looks at the reasons of all workers
_SHOWN = 16  # workers in the message of a timeout


class StartProgress:
    """Follows one attempt until all of its workers have started.

    Args:
        notice: receives lines for the user.
    """

    def __init__(self, info: RunInfo, workload_status: WorkloadStatus, notice: Callable[[str], None]) -> None:
        self._info, self._workload_status, self._notice = info, workload_status, notice
        self._reasons = PendingReasons(info)
        self._clock = StartClock(QUEUE if info.queue or info.kind is POD else "its resumption")
        self._workers: Mapping[int, WorkerStatus] = {}
        self._event_texts: dict[str, str] = {}
        self._queued = ""
        self._next_look = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of --start-timeout that have passed."""
        return self._clock.seconds

    def count(self, passed: float, waits_for: str = QUEUE) -> bool:
        """Count the seconds that have passed, and show at times what was waited for; return whether they are free."""
        free = self._clock.count(passed, waits_for)
        if text := self._clock.progress():
            self._notice(text)
        return free

    def update(
        self,
        workers: Mapping[int, WorkerStatus],
        replaced: Callable[[], Mapping[int, str]],
        now: float,
        passed: float,
    ) -> bool:
        """Show what delays the workers; return whether the seconds that have passed count for no timeout.

        Args:
            replaced: returns by rank why it has no pod now, as far as that is known.
            now: monotonic time.
            passed: seconds since the last update.
        """
        self._workers, self._queued = workers, self._workload_status.queued(workers)
        self._event_texts = {}
        if not self._queued and self._clock.passed > _EVENTS_SECONDS:
            self._event_texts = self._workload_status.event_texts(workers)
        free = self.count(passed, QUEUE if self._queued else cold_start(workers, self._event_texts))
        if now >= self._next_look:
            self._next_look = now + self._info.nnodes * _SECONDS_PER_WORKER
            found = self._reasons.lines(workers, self._event_texts, self._queued, now, replaced=replaced())
            for text in found:
                self._notice(text)
        return free

    def has_started(self, workers: Mapping[int, WorkerStatus]) -> bool:
        """Whether all workers have started, or ended before."""
        return sum(one.started or one.ended is not None for one in workers.values()) == self._info.nnodes

    def timeout_text(self, limit: float, replaced: Mapping[int, str]) -> str:
        """The message of a timeout: how many workers have started, and what the others wait for."""
        found = self._reasons.reasons(self._workers, self._event_texts, self._queued, replaced=replaced)
        shown = [f"{name}: {why}" for name, why in list(found.items())[:_SHOWN]]
        more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        count = sum(one.started for one in self._workers.values())
        first = f"timed out after --start-timeout {limit:g} s: {count} of {self._info.nnodes} workers started"
        return "\n".join([first, *shown, *more])
