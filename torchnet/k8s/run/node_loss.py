"""Report workers whose pods are being taken away, and mark those on silent nodes as lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerExit, WorkerStatus

_UNHEARD_SECONDS = 5.0  # beyond a pod's grace period, before its node counts as lost


class NodeLoss:
    """Tracks pods that are being deleted, evicted or preempted.

    Args:
        warn: receives one line for each such pod.
    """

    def __init__(self, facts: RunInfo, warn: Callable[[str], None]) -> None:
        self._facts, self._warn = facts, warn
        self._since: dict[str, float] = {}  # by pod UID: when its end was seen to begin
        self._unheard: dict[int, WorkerStatus] = {}
        self._forgotten: set[str] = set()

    @property
    def unheard(self) -> bool:
        """Whether any node counts as lost."""
        return bool(self._unheard)

    @property
    def lost(self) -> list[WorkerStatus]:
        """The workers on lost nodes."""
        return list(self._unheard.values())

    def forget(self) -> None:
        """Forget the lost workers for good: the pods of the next attempt take their places."""
        self._forgotten |= {one.uid for one in self._unheard.values()}
        self._unheard = {}

    def correct(self, workers: dict[int, WorkerStatus]) -> None:
        """Replace the status that the cluster still reports for lost workers."""
        for rank, one in self._unheard.items():
            known = workers.get(rank)
            if known is None or (known.uid == one.uid and known.ended is None):
                workers[rank] = one

    def look(self, workers: dict[int, WorkerStatus], now: float) -> None:
        """Warn of pods that are being taken away; one that outlives its grace period is on a lost node."""
        for rank, one in workers.items():
            if not one.leaving or one.ended is not None or one.uid in self._forgotten:
                continue
            if one.uid not in self._since:
                self._since[one.uid] = now
                where = f" on {one.node}" if one.node else ""
                self._warn(f"{self._facts.node(rank)}{where}: {one.leaving}")
            elif now - self._since[one.uid] > one.patience + _UNHEARD_SECONDS:
                why = f"{one.leaving}; its node does not say that it has ended"
                lost = replace(one, stage="ended", ended=WorkerExit(70, None, why))
                self._unheard[rank] = workers[rank] = lost
