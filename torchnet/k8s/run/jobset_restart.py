"""The restarts of a JobSet's gang: why an attempt begins, and which worker holds up the next one.

A JobSet starts its gang again when its Job has failed, and the Job fails when all of its pods have ended. Agents that
lose a worker, or rank 0, end by themselves. A pod on a node that is lost does not: that is the cluster's to settle, as
only an administrator can know that the node runs nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torchnet.agent.events import Failure
from torchnet.k8s.run.node_loss import NodeLoss
from torchnet.k8s.run.outcome import first_failure
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus

# After it, and for a node that is deleted, the pod garbage collector marks the pods as failed. A forced deletion does
# not: the Job's finalizer holds the pod.
_OUT = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"


class JobSetRestart:
    """``notice`` gets a line when an attempt begins, and one for each attempt whose end is held up."""

    def __init__(
        self, facts: RunInfo, gang: WorkerSet, leaving: NodeLoss, notice: Callable[[str], None]
    ) -> None:
        self._facts, self._gang, self._leaving, self._notice = facts, gang, leaving, notice
        self._broken: float | None = None
        self._cause: Failure | None = None
        self._named = False
        self.attempt = 0
        """Which start of the gang the cluster is at."""

    @property
    def workers(self) -> dict[int, WorkerStatus]:
        """Those of the present start."""
        found = self._gang.workers(range(self.attempt, self.attempt + 1))
        self._leaving.correct(found)
        return found

    def begun(self, restarts: int) -> bool:
        """Whether the gang starts again, which is told with its reason. ``restarts``: as the JobSet counts them."""
        newest = max(restarts, self._gang.attempt)
        if newest <= self.attempt:
            return False
        found = self._cause or first_failure(self._facts, self._gang.workers(range(newest)))
        why = f": {found.text.partition(chr(10))[0]}" if found else ""
        self._notice(f"the gang starts again (restart {newest}){why}")
        self._leaving.forget()
        self.attempt = newest
        self.forget()
        return True

    def forget(self) -> None:
        """What was broken before does not concern the next attempt, as after a suspension."""
        self._broken, self._cause, self._named = None, None, False

    def look(self, now: float, apart: float, *, last: bool) -> Failure | None:
        """Name what holds up the restart of a broken gang; the failure instead if this attempt is the ``last``.

        ``apart``: seconds that the workers have to end by themselves.
        """
        workers = self.workers
        found = first_failure(self._facts, workers)
        if found is None:
            return None
        if self._broken is None:
            self._broken = now
        # When the JobSet deletes all pods, it can no more be seen which one was taken away first.
        if self._cause is None or found.kind != "interrupted":
            self._cause = found
        if not self._leaving.unheard and now - self._broken <= apart:
            return None
        if last:
            return found
        if not self._named:
            self._name(workers)
        return None

    def _name(self, workers: Mapping[int, WorkerStatus]) -> None:
        # Where a node is silent, the others may train on: they reach its worker over the network.
        held = self._leaving.lost or [one for one in workers.values() if one.node and one.ended is None]
        if not held:
            return
        self._named = True
        one, more = held[0], f" (and {len(held) - 1} more workers)" if len(held) > 1 else ""
        self._notice(
            f"{self._facts.node(one.rank)} on node {one.node}{more} has not ended; the gang restarts when it has\n"
            f"check the node: kubectl get node {one.node}\n"
            f"if it is shut down, an administrator can have its pods removed: kubectl taint nodes {one.node} {_OUT}\n"
            f"to give up the run: torchnet down {self._facts.command}"
        )
