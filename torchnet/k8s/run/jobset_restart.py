"""Restarts of a JobSet: why an attempt begins, and which worker delays the next one.

A JobSet restarts its workers when its Job has failed, and the Job fails when all of its pods have ended. Agents that
lose a worker, or rank 0, exit by themselves. A pod on a lost node does not end by itself. torchnet leaves such a pod
to the cluster, because only an administrator can know that the node no longer runs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torchnet.agent.events import Failure
from torchnet.k8s.run.node_loss import NodeLoss
from torchnet.k8s.run.outcome import first_failure
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus

# With this taint, or once the node is deleted, the pod garbage collector marks the node's pods as failed. A forced
# deletion does not help: the Job's finalizer keeps the pod.
_OUT = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"


class JobSetRestart:
    """Reports the restarts of one JobSet.

    Args:
        notice: receives a line when an attempt begins, and one for each attempt whose end is delayed.
    """

    def __init__(
        self, facts: RunInfo, gang: WorkerSet, leaving: NodeLoss, notice: Callable[[str], None]
    ) -> None:
        self._facts, self._gang, self._leaving, self._notice = facts, gang, leaving, notice
        self._broken: float | None = None
        self._cause: Failure | None = None
        self._named = False
        self.attempt = 0
        """The number of the current attempt; the first one is 0."""

    @property
    def workers(self) -> dict[int, WorkerStatus]:
        """The workers of the current attempt, by node rank."""
        found = self._gang.workers(range(self.attempt, self.attempt + 1))
        self._leaving.correct(found)
        return found

    def begun(self, restarts: int) -> bool:
        """Whether a new attempt has begun; it is reported with its reason.

        Args:
            restarts: the count in the JobSet's status.
        """
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
        """Forget the failure of the current attempt when the next one begins, also after a suspension."""
        self._broken, self._cause, self._named = None, None, False

    def look(self, now: float, apart: float, *, last: bool) -> Failure | None:
        """Report what delays the restart of a failed attempt.

        Args:
            now: monotonic time.
            apart: how many seconds the workers have to exit by themselves.
            last: whether no restart is left.

        Returns:
            The failure, if this attempt is the last one and its workers' time is over or a node is lost; else None.
        """
        workers = self.workers
        found = first_failure(self._facts, workers)
        if found is None:
            return None
        if self._broken is None:
            self._broken = now
        # Once the JobSet deletes all pods, it can no longer be seen which one was taken away first.
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
        # If a node is silent, the other workers may still train, because they reach its worker over the network.
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
