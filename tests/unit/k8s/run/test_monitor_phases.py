"""The phases of a monitored run: whatever happens to its pods, in any order, it has one outcome that fits."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.api_store import Store, forbidden, refusal, stamp
from tests.unit.aside import interrupt
from tests.unit.k8s.run.test_monitor import FAILED, Watched
from tests.unit.kubernetes_objects import NAMESPACE, RUN, facts, job, message, pod, running, terminated
from torchnet.k8s.client.kinds import JOB
from torchnet.k8s.run import monitor, workload_status
from torchnet.k8s.run.monitor import RunOptions
from torchnet.k8s.run.phase import TRANSITIONS, Phase
from torchnet.signals import Signals

WORLD = 2
STAGES: dict[str, dict[str, Any]] = {
    "prepares": {"prepare": running()},
    "joins": {"phase": "Running", "prepare": terminated(0), "worker": running(), "started": False},
    "trains": {"phase": "Running", "prepare": terminated(0), "worker": running()},
    "succeeds": {"phase": "Succeeded", "prepare": terminated(0), "worker": terminated(0, message())},
    "fails": {"phase": "Failed", "worker": terminated(42, message(1, 42, failure=FAILED))},
    "is killed": {"phase": "Failed", "worker": terminated(137, None, "OOMKilled")},
}
OVER = ("succeeds", "fails", "is killed")
CODES = {"fails": 42, "is killed": 70, "is deleted": 70, "signal": 128 + signal.SIGINT}
FAULTS = {
    "watch expires": ("GET", "watch=true", refusal(410, "Expired", "too old")),
    "server is busy": ("GET", "", refusal(503, "ServiceUnavailable", "busy")),
    "job is forbidden": ("GET", f"/jobs/{RUN}$", forbidden("jobs")),
}
EVENTS = st.one_of(
    st.tuples(st.sampled_from([*STAGES, "is deleted"]), st.integers(0, WORLD - 1)),
    st.tuples(st.sampled_from(["suspend", "resume", "signal", "recover", *FAULTS]), st.just(0)),
)


class Controllers:
    """What the Job controller, the kubelets and the API server do with a Job of two workers."""

    def __init__(self, store: Store) -> None:
        self._store, self._count = store, 0
        self._job = store.put(job(WORLD))
        self._stages: dict[int, str] = {}
        self._uids: dict[int, str] = {}
        self._create()

    def apply(self, event: str, rank: int) -> None:
        if event in FAULTS:
            self._store.faults.append(FAULTS[event])
        elif event == "recover":
            self._store.faults.clear()
        elif event == "signal":
            interrupt()
        elif JOB.path(NAMESPACE, RUN) not in self._store.objects:
            pass  # the launcher has deleted the run
        elif event in ("suspend", "resume"):
            self._suspend(suspended=event == "suspend")
        elif event == "is deleted":
            self._remove(rank)
        elif self._stages.get(rank) not in (None, *OVER):
            self._put(rank, event)

    def finish(self) -> None:
        """All workers that have not ended succeed, in a new pod where they have none."""
        self.apply("recover", 0)
        self.apply("resume", 0)
        for rank in range(WORLD):
            if JOB.path(NAMESPACE, RUN) in self._store.objects and self._stages.get(rank) not in OVER:
                self._uids.setdefault(rank, self._uid(rank))
                self._put(rank, "succeeds")

    def _uid(self, rank: int) -> str:
        self._count += 1
        return f"{self._count}-{rank}"

    def _create(self) -> None:
        for rank in range(WORLD):
            if rank not in self._stages:
                self._uids[rank] = self._uid(rank)
                self._put(rank, "prepares")

    def _put(self, rank: int, stage: str) -> None:
        self._stages[rank] = stage
        more = STAGES[stage]
        self._store.put(pod(rank, uid=self._uids[rank], made=stamp(time.time()), **more))

    def _remove(self, rank: int) -> None:
        if self._stages.pop(rank, None) is not None:
            uid = self._uids.pop(rank)
            self._store.objects.pop(f"/api/v1/namespaces/{NAMESPACE}/pods/{RUN}-{rank}-{uid}", None)

    def _suspend(self, *, suspended: bool) -> None:
        if suspended == bool(self._job["spec"].get("suspend")):
            return
        self._job["spec"] = {"suspend": suspended}
        now = stamp(time.time())
        condition = {"type": "Suspended", "status": str(suspended), "lastTransitionTime": now}
        self._job["status"] = {"conditions": [condition]}
        if not suspended:
            self._create()
            return
        for rank in range(WORLD):
            if self._stages.get(rank) not in OVER:
                self._remove(rank)


@given(st.lists(EVENTS, max_size=5))
@example([("trains", 0), ("trains", 1), ("suspend", 0), ("resume", 0)])
@example([("prepares", 1), ("suspend", 0), ("is deleted", 1), ("job is forbidden", 0)])
@example([("trains", 1), ("fails", 1), ("signal", 0), ("signal", 0)])
# Without shrinking: each example takes seconds, and a busy machine fails some that are well alone.
@settings(max_examples=6, deadline=None, phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
def test_every_run_has_one_outcome_that_fits(events: list[tuple[str, int]]) -> None:
    store = Store()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder, Signals() as signals:
        for name in ("_TICK_SECONDS", "_SETTLE_SECONDS", "_START_FAILURE_SECONDS"):
            patch.setattr(monitor, name, 0.05)
        patch.setattr(monitor, "PATIENCE_SECONDS", 0.3)
        patch.setattr(workload_status, "POLL_SECONDS", 0.1)
        cluster = Controllers(store)
        steps: list[Callable[[], object] | float] = [0.3]
        for event, rank in events:
            steps += [partial(cluster.apply, event, rank), 0.1]
        hang = lambda: store.faults.append(("GET", "", forbidden("hang")))  # noqa: E731
        watched = Watched(store, Path(folder), signals)
        outcome = watched.run(facts(WORLD), RunOptions(grace=0), *steps, cluster.finish, 12.0, hang)
    store.close()
    happened = {event for event, _ in events}
    codes = {code for event, code in CODES.items() if event in happened}
    assert outcome.code in codes | {0}, (outcome, watched.err.getvalue())
    if not codes:
        assert outcome.receipt is not None
        assert (outcome.receipt["failure"], outcome.stopped) == (None, False)
    if happened & {"fails", "is killed"} and not happened & {"suspend", "is deleted", "signal", "succeeds"}:
        assert outcome.code != 0


def test_every_phase_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS) == set(Phase)
    reached = {Phase.SUBMITTED}
    while more := {after for phase in reached for after in TRANSITIONS[phase]} - reached:
        reached |= more
    assert reached == set(Phase)
    assert all(Phase.ENDED in TRANSITIONS[phase] for phase in set(Phase) - {Phase.ENDED})
