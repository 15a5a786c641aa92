"""Report workers whose pods are being taken away, and mark those on silent nodes as lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerExit, WorkerStatus

_NODE_RESPONSE_SECONDS = 5.0  # beyond a pod's grace period, before its node counts as lost


class NodeLoss:
    """Tracks pods that are being deleted, evicted or preempted.

    Args:
        warn: receives one line for each such pod.
    """

    def __init__(self, info: RunInfo, warn: Callable[[str], None]) -> None:
        self._info, self._warn = info, warn
        self._since: dict[str, float] = {}  # by pod UID: when its end was seen to begin
        self._lost: dict[int, WorkerStatus] = {}
        self._forgotten: set[str] = set()

    @property
    def any_lost(self) -> bool:
        """Whether any node counts as lost."""
        return bool(self._lost)

    @property
    def lost(self) -> list[WorkerStatus]:
        """The workers on lost nodes."""
        return list(self._lost.values())

    def forget(self) -> None:
        """Forget the lost workers for good: the pods of the next attempt take their places."""
        self._forgotten |= {one.uid for one in self._lost.values()}
        self._lost = {}

    def correct(self, workers: dict[int, WorkerStatus]) -> None:
        """Replace the status that the cluster still reports for lost workers."""
        for rank, one in self._lost.items():
            status = workers.get(rank)
            if status is None or (status.uid == one.uid and status.ended is None):
                workers[rank] = one

    def look(self, workers: dict[int, WorkerStatus], now: float) -> None:
        """Warn of pods that are being taken away; one that outlives its grace period is on a lost node."""
        for rank, one in workers.items():
            if not one.leaving or one.ended is not None or one.uid in self._forgotten:
                continue
            if one.uid not in self._since:
                self._since[one.uid] = now
                where = f" on {one.node}" if one.node else ""
                self._warn(f"{self._info.node(rank)}{where}: {one.leaving}")
            elif now - self._since[one.uid] > one.patience + _NODE_RESPONSE_SECONDS:
                why = f"{one.leaving}; its node does not report that it has terminated"
                lost = replace(one, stage="ended", ended=WorkerExit(70, None, why))
                self._lost[rank] = workers[rank] = lost
