"""The receipts of attempts that are over while their run goes on: suspended, or restarted by its JobSet.

Such an attempt's pods are still terminating when it is known to be over, and rank 0 writes its receipt last. The
receipt is therefore built when all pods of the attempt have ended and rank 0's log is read, or a few seconds later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torchnet.agent.events import Failure
from torchnet.k8s.run.log_stream import LogSelection
from torchnet.k8s.run.outcome import settle
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerSet

_LOG_SECONDS = 3.0  # for rank 0's receipt and for further pods, once all known pods of the attempt have ended
_LONGEST_SECONDS = 120.0  # for all pods to end: one on a lost node does not

_LOOK_SECONDS = 0.1

OnAttempt = Callable[[int, dict[str, Any]], None]


@dataclass
class _Attempt:
    number: int
    uids: frozenset[str]
    failure: Callable[[], Failure]
    at: float
    ended_at: float | None = None


class AttemptReceipts:
    """Collects what attempts that are over leave behind.

    Args:
        logged: the receipts in rank 0's logs, by pod UID.
        on_attempt: receives the number and the receipt of an attempt.
    """

    def __init__(
        self,
        info: RunInfo,
        worker_set: WorkerSet,
        log_selection: LogSelection,
        logged: Mapping[str, object],
        on_attempt: OnAttempt,
    ) -> None:
        self._info, self._worker_set, self._log_selection = info, worker_set, log_selection
        self._logged, self._on_attempt = logged, on_attempt
        self._open: list[_Attempt] = []
        self._reported = 0
        self._next_look = 0.0

    def add(self, number: int, uids: frozenset[str], failure: Callable[[], Failure], now: float) -> None:
        """Note that an attempt is over, or that more pods of it are known.

        Args:
            number: of the attempt; the first one is 1.
            uids: the UIDs of its pods; without pods there is no receipt.
            failure: returns why it is over, unless its agents report a failure that came first.
            now: monotonic time.
        """
        if self._open and self._open[-1].number == number:
            self._open[-1].uids |= uids
        elif uids and number > self._reported:
            self._open.append(_Attempt(number, uids, failure, now))

    def collect(self, now: float, *, all_of_them: bool = False) -> None:
        """Report the attempts whose pods have ended, the first one first; with ``all_of_them``, all others, too."""
        if not self._open or (now < self._next_look and not all_of_them):
            return
        self._next_look = now + _LOOK_SECONDS
        while self._open and (self._is_complete(self._open[0], now) or all_of_them):
            one = self._open.pop(0)
            self._reported = one.number
            failure = one.failure()
            workers = self._worker_set.former(one.uids)
            logged = self._logged.get(workers[0].uid) if 0 in workers else None
            receipt = settle(self._info, workers, logged, failure, now=failure.at)
            self._on_attempt(one.number, receipt)

    def _is_complete(self, one: _Attempt, now: float) -> bool:
        workers = self._worker_set.former(one.uids)
        self._log_selection.update(workers)  # notifies the followers whose container has ended
        if any(worker.ended is None for worker in workers.values()):
            return now - one.at > _LONGEST_SECONDS
        if one.ended_at is None:
            one.ended_at = now
        complete = len(workers) == self._info.nnodes and (
            not workers[0].started or workers[0].uid in self._logged
        )
        return complete or now - one.ended_at > _LOG_SECONDS
