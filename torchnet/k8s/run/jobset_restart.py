"""A JobSet's gang that is broken: its next start is told, and brought about where the cluster would wait for ever.

The JobSet starts its gang again when its Job has failed, and a Job fails when all of its pods have ended: one on a node
that is lost does not, and one that was made in the place of a lost worker waits for a rank 0 that is at its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from torchnet.agent.events import Failure
from torchnet.constants import ATTEMPT_LABEL
from torchnet.errors import ClusterError
from torchnet.k8s.client.api import MERGE_PATCH, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import JOB, POD
from torchnet.k8s.client.watch import own_error
from torchnet.k8s.run.node_loss import NodeLoss
from torchnet.k8s.run.outcome import first_failure
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus

_UNANSWERED_SECONDS = 30.0  # beyond the pods' own time: so long a Job that was told to fail has for it

_TRIES = 5  # to change an object that others change, too
_TRACKED = "batch.kubernetes.io/job-tracking"  # the finalizer by which a Job keeps its pods until it has counted them


class JobSetRestart:
    """``notice`` gets lines from this thread, ``problem`` from others."""

    def __init__(
        self,
        door: ApiClient,
        facts: RunInfo,
        gang: WorkerSet,
        leaving: NodeLoss,
        notice: Callable[[str], None],
        problem: Callable[[str], None],
    ) -> None:
        self._door, self._facts, self._gang, self._leaving = door, facts, gang, leaving
        self._notice, self._problem = notice, problem
        self._broken: float | None = None
        self._cause: Failure | None = None
        self._told: float | None = None  # when the Job was told to fail
        self._let_go: set[str] = set()  # UIDs
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
        self.attempt, self._broken, self._told, self._cause = newest, None, None, None
        return True

    def forget(self) -> None:
        """The workload was suspended: what was broken before is no concern of the next attempt."""
        self._broken = self._told = self._cause = None

    def look(self, now: float, apart: float, *, last: bool = False) -> Failure | None:
        """See to it that a broken gang's Job fails; the failure, where it does not although it was told to.

        ``apart``: seconds that the workers have to end by themselves. ``last``: no other start comes, and what there is
        is to stay: the failure then, since a Job that fails deletes the pods that run.
        """
        silent = [one for one in self._leaving.lost if one.uid not in self._let_go]
        if silent:
            self._let_go |= {one.uid for one in silent}
            self._aside(lambda: self._release(silent))
        workers = self.workers
        found = first_failure(self._facts, workers)
        if found is None:
            return None
        if self._broken is None:
            self._broken = now
        # When the JobSet deletes all pods, it can no more be seen which one was taken away first.
        if self._cause is None or found.kind != "interrupted":
            self._cause = found
        if self._told is None and (self._leaving.unheard or now - self._broken > apart):
            if last:
                return found
            self._told = now
            attempt = self.attempt
            self._aside(lambda: self._fail(attempt))
        patience = max((one.patience for one in workers.values()), default=0.0) + _UNANSWERED_SECONDS
        return found if self._told is not None and now - self._told > patience else None

    def _aside(self, action: Callable[[], None]) -> None:
        def work() -> None:
            try:
                action()
            except ClusterError as error:
                self._problem(f"the gang cannot be started again: {error}")
            except Exception as error:
                self._problem(own_error(f"the next start of {self._facts.run}", error).text)

        threading.Thread(target=work, name="again", daemon=True).start()

    def _fail(self, attempt: int) -> None:
        """Tell this start's Job that its time is over: the JobSet does what it does with any that has failed."""
        namespace, name = self._facts.namespace, self._facts.maker
        path = JOB.path(namespace, name)
        try:
            found = self._door.call("GET", path, JOB.call("get", namespace, name))
            meta = found["metadata"]
            if (meta.get("labels") or {}).get(ATTEMPT_LABEL, "0") != str(attempt):
                return  # the JobSet was faster
            if (found.get("spec") or {}).get("suspend"):
                return  # it keeps its spec, and would have no time when it is resumed
            body: dict[str, Any] = {"metadata": {"uid": meta["uid"]}, "spec": {"activeDeadlineSeconds": 1}}
            query = {"fieldManager": "torchnet"}
            call = JOB.call("patch", namespace, name)
            self._door.call("PATCH", path, call, query=query, body=body, content=MERGE_PATCH)
        except ApiRefusal as error:
            if error.status not in (404, 409):  # gone, or gone and there is another one
                raise

    def _release(self, silent: Sequence[WorkerStatus]) -> None:
        """Take pods from the Job, which would wait for them for ever.

        They stay for their nodes to end, or for the run's removal: taken out by force, they would give their addresses
        to the next start, where the nodes still run them.
        """
        for one in silent:
            for _ in range(_TRIES):
                if self._released(one):
                    break

    def _released(self, one: WorkerStatus) -> bool:
        """Whether it is no concern of the Job's any more; False where somebody else has changed it meanwhile."""
        namespace, path = self._facts.namespace, POD.path(self._facts.namespace, one.pod)
        try:
            meta = self._door.call("GET", path, POD.call("get", namespace, one.pod))["metadata"]
            if meta["uid"] != one.uid:
                return True
            change = {
                "resourceVersion": meta["resourceVersion"],  # the lists are replaced whole
                "ownerReferences": [o for o in meta.get("ownerReferences") or () if not o.get("controller")],
                "finalizers": [text for text in meta.get("finalizers") or () if text != _TRACKED],
            }
            call, query = POD.call("patch", namespace, one.pod), {"fieldManager": "torchnet"}
            self._door.call("PATCH", path, call, query=query, body={"metadata": change}, content=MERGE_PATCH)
        except ApiRefusal as error:
            if error.status not in (404, 409):
                raise
            return error.status == 404
        return True
