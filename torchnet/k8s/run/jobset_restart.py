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
        self, info: RunInfo, worker_set: WorkerSet, node_loss: NodeLoss, notice: Callable[[str], None]
    ) -> None:
        self._info, self._worker_set, self._node_loss, self._notice = info, worker_set, node_loss, notice
        self._failed_at: float | None = None
        self._cause: Failure | None = None
        self._delay_reported = False
        self.attempt = 0
        """The number of the current attempt; the first one is 0."""
        self.ended_cause: Failure | None = None
        """Why the attempt before this one failed; None if that is not known."""
        self.ended_uids: frozenset[str] = frozenset()
        """The UIDs of that attempt's pods."""

    @property
    def workers(self) -> dict[int, WorkerStatus]:
        """The workers of the current attempt, by node rank."""
        found = self._worker_set.workers(range(self.attempt, self.attempt + 1))
        self._node_loss.correct(found)
        return found

    @property
    def lost(self) -> Failure | None:
        """The lost worker because of which the current attempt fails.

        A Job that fails by its rule FailJob deletes all pods: afterwards, the end of each of them looks the same.
        """
        return self._cause if self._cause is not None and self._cause.kind == "lost" else None

    def begun(self, restarts: int) -> bool:
        """Whether a new attempt has begun; it is reported with its reason.

        Args:
            restarts: the count in the JobSet's status.
        """
        newest = max(restarts, self._worker_set.attempt)
        if newest <= self.attempt:
            return False
        found = self._cause or first_failure(self._info, self._worker_set.workers(range(newest)))
        why = f": {found.text.partition(chr(10))[0]}" if found else ""
        self.ended_cause, self.ended_uids = found, frozenset(one.uid for one in self.workers.values())
        self._notice(f"the JobSet restarts its workers (restart {newest}){why}")
        self._node_loss.forget()
        self.attempt = newest
        self.forget()
        return True

    def forget(self) -> None:
        """Forget the failure of the current attempt when the next one begins, also after a suspension."""
        self._failed_at, self._cause, self._delay_reported = None, None, False

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
        found = first_failure(self._info, workers)
        if found is None:
            return None
        if self._failed_at is None:
            self._failed_at = now
        # Once the JobSet deletes all pods, it can no longer be seen which one was taken away first.
        if self._cause is None or found.kind != "interrupted":
            self._cause = found
        if not self._node_loss.any_lost and now - self._failed_at <= apart:
            return None
        if last:
            return found
        if not self._delay_reported:
            self._report_delay(workers)
        return None

    def _report_delay(self, workers: Mapping[int, WorkerStatus]) -> None:
        # If a node is silent, the other workers may still train, because they reach its worker over the network.
        blocking = self._node_loss.lost or [one for one in workers.values() if one.node and one.ended is None]
        if not blocking:
            return
        self._delay_reported = True
        one, more = blocking[0], f" (and {len(blocking) - 1} more workers)" if len(blocking) > 1 else ""
        self._notice(
            f"{self._info.node(one.rank)} on node {one.node}{more} has not terminated; "
            "the JobSet restarts its workers once it has\n"
            f"check the node: kubectl get node {one.node}\n"
            f"if it is shut down, an administrator can remove its pods: kubectl taint nodes {one.node} {_OUT}\n"
            f"to give up the run: torchnet down {self._info.command}"
        )
