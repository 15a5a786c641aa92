"""Workers whose pods are taken away: they are named, and those whose nodes fall silent are lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerExit, WorkerStatus

_UNHEARD_SECONDS = 5.0  # beyond the time that a pod gets for its end, until its node is lost


class NodeLoss:
    """``warn`` gets one line for each pod that is taken away."""

    def __init__(self, facts: RunInfo, warn: Callable[[str], None]) -> None:
        self._facts, self._warn = facts, warn
        self._since: dict[str, float] = {}  # by the pod's UID
        self._unheard: dict[int, WorkerStatus] = {}
        self._forgotten: set[str] = set()

    @property
    def unheard(self) -> bool:
        """Whether a node has been given up."""
        return bool(self._unheard)

    @property
    def lost(self) -> list[WorkerStatus]:
        """Those whose nodes have been given up."""
        return list(self._unheard.values())

    def forget(self) -> None:
        """Others are in their places, for good."""
        self._forgotten |= {one.uid for one in self._unheard.values()}
        self._unheard = {}

    def correct(self, workers: dict[int, WorkerStatus]) -> None:
        """Put what became of silent nodes' workers in the place of what the cluster still says of them."""
        for rank, one in self._unheard.items():
            known = workers.get(rank)
            if known is None or (known.uid == one.uid and known.ended is None):
                workers[rank] = one

    def look(self, workers: dict[int, WorkerStatus], now: float) -> None:
        """Warn of pods that are taken away now; one that does not end in its time is on a node that is lost."""
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
