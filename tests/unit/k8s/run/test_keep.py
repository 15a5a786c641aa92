"""--keep: a run that is stopped ends where it is, stays with all that it said, and nothing of it is made later."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import client
from tests.unit.api_store import Store, forbidden, storing
from tests.unit.aside import aside, hearing, interrupt, pause, until
from tests.unit.k8s.run.test_monitor import plain
from tests.unit.kubernetes_objects import (
    LABELS,
    NAMESPACE,
    RUN,
    facts,
    failure,
    job,
    message,
    pod,
    running,
    terminated,
    waiting,
)
from torchnet.console.console import Console
from torchnet.k8s.client.kinds import JOBSET
from torchnet.k8s.run import stop
from torchnet.k8s.run.launch import monitor_and_report
from torchnet.k8s.run.monitor import RunOptions
from torchnet.k8s.run.run_info import RunInfo
from torchnet.signals import Signals

store, signals = pytest.fixture(storing), pytest.fixture(hearing)


@dataclass
class Kept:
    """A run of two workers under --keep, whose launch is told to stop in one way or another."""

    store: Store
    folder: Path
    signals: Signals
    err: io.StringIO = field(default_factory=io.StringIO)

    def run(self, known: RunInfo, *steps: Any, **options: Any) -> int:
        """Interrupted once the pods are watched, unless there are other ``steps``."""
        console = Console(self.err, io.StringIO(), world_size=2, color=False, tty=False)
        wanted = RunOptions(keep=True, **options)
        one = client(self.store, self.folder)
        watched = lambda: until(lambda: self.store.wanted("GET", "watch=true"))  # noqa: E731
        with aside(*(steps or (watched, 0.3, interrupt))):
            return monitor_and_report(one, known, console, wanted, self.signals, json_path=None)

    def made(self, kind: str) -> list[dict[str, Any]]:
        return [self.store.objects[path] for path in sorted(self.store.objects) if f"/{kind}/" in path]

    def ended(self) -> list[str]:
        """The reasons why its pods have ended, by rank."""
        return [str(one["status"].get("reason")) for one in self.made("pods")]

    def sealed(self) -> bool:
        """Whether its Job makes no other pod."""
        (one,) = self.made("jobs")
        return bool(one["spec"].get("activeDeadlineSeconds") == 1)


BOTH = ["DeadlineExceeded"] * 2


@pytest.fixture
def kept(store: Store, tmp_path: Path, signals: Signals) -> Kept:
    store.put(job(2))
    for rank in range(2):
        store.put(pod(rank, phase="Running", worker=running()))
    return Kept(store, tmp_path, signals)


def test_a_kept_run_that_is_interrupted_ends_and_stays(store: Store, kept: Kept) -> None:
    assert kept.run(facts(2)) == 130
    assert (kept.ended(), kept.sealed(), store.deleted) == (BOTH, True, [])
    assert f"the run {RUN} is still there" in kept.err.getvalue()


def test_a_kept_run_whose_time_is_over_ends_and_stays(store: Store, kept: Kept) -> None:
    assert kept.run(facts(2), 10.0, timeout=0.5) == 124
    assert (kept.ended(), kept.sealed(), store.deleted) == (BOTH, True, [])
    assert f"the run {RUN} is still there" in kept.err.getvalue()


def test_what_has_failed_stays_as_it_is_in_a_kept_run(store: Store, kept: Kept) -> None:
    """And what still waits for it is ended beside it."""
    why = failure("network", 4, rank=None, node=f"{RUN}-1")
    words = message(1, 4, phase="prepare", failure=why)
    store.put(pod(1, phase="Failed", prepare=terminated(4, words), worker=waiting("PodInitializing")))
    store.put(pod(0, prepare=running(), worker=waiting("PodInitializing")))
    assert kept.run(facts(2), 20.0) == 4
    assert (kept.ended(), kept.sealed(), store.deleted) == (["DeadlineExceeded", "None"], True, [])


def test_the_job_is_told_once_its_pods_have_ended(store: Store, kept: Kept) -> None:
    """Before that it would delete them, with their last words."""
    store.lingers = 60

    def ends() -> None:
        until(lambda: all(one["spec"].get("activeDeadlineSeconds") for one in kept.made("pods")))
        pause(1.0)
        assert not kept.sealed()
        store.deadlines()

    watched = lambda: until(lambda: store.wanted("GET", "watch=true"))  # noqa: E731
    assert kept.run(facts(2), watched, 0.3, interrupt, ends) == 130
    assert (kept.ended(), kept.sealed(), store.deleted) == (BOTH, True, [])


def test_an_image_that_never_comes_is_told_to_end_before_the_launcher_goes(store: Store, kept: Kept) -> None:
    """Nothing of such pods is waited for, but that they were told is."""
    for rank in range(2):
        store.put(pod(rank, prepare=waiting("ErrImagePull")))
    late = threading.Event()
    store.faults = [("PATCH", "/pods/", late)]
    watched = lambda: until(lambda: store.wanted("GET", "watch=true"))  # noqa: E731
    assert kept.run(facts(2), watched, 0.3, interrupt, 1.5, late.set) == 130
    assert (kept.ended(), kept.sealed(), store.deleted) == (BOTH, True, [])


def test_pods_that_are_not_there_yet_are_never_made_in_a_kept_run(store: Store, kept: Kept) -> None:
    """A queue, a quota or a replacement would bring them later, to a job that nobody waits for."""
    for path in [path for path in store.objects if "/pods/" in path]:
        del store.objects[path]
    assert kept.run(facts(2)) == 130
    assert (kept.sealed(), store.deleted) == (True, [])


@pytest.mark.parametrize("when", ["before", "while its pods end"])
def test_a_suspended_run_is_not_kept_to_end_once_its_queue_admits_it(
    store: Store, kept: Kept, when: str
) -> None:
    """Its queue may preempt another run for it."""
    (body,) = kept.made("jobs")

    def suspend() -> None:
        body["spec"] = {"suspend": True}
        for path in [path for path in store.objects if "/pods/" in path]:
            del store.objects[path]

    watched = lambda: until(lambda: store.wanted("GET", "watch=true"))  # noqa: E731
    if when == "before":
        suspend()
        steps: tuple[Any, ...] = (watched, 0.3, interrupt)
    else:
        store.lingers = 60
        steps = watched, 0.3, interrupt, lambda: until(lambda: store.patches), suspend
    assert kept.run(facts(2), *steps) == 130
    assert not [path for path, _ in store.patches if "/jobs/" in path]
    assert store.names() == []
    assert (
        "--keep: the run waits for its queue and would start later, so it is removed" in kept.err.getvalue()
    )
    assert "is still there" not in kept.err.getvalue()


def test_plain_pods_behind_their_gates_are_not_kept(store: Store, kept: Kept) -> None:
    store.objects.clear()
    for rank in range(2):
        body = plain(rank, scheduled={"status": "False", "reason": "SchedulingGated"})
        body["spec"] = {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}
        store.put(body)
    assert kept.run(facts(2, pods=True)) == 130
    assert (store.patches, store.names()) == ([], [])


def test_a_kept_run_without_the_rights_on_pods_is_ended_by_its_job(store: Store, kept: Kept) -> None:
    store.faults = [("PATCH", "/pods/", forbidden("pods"))]
    assert kept.run(facts(2), grace=-13.0) == 130
    assert kept.sealed()
    assert "so they are deleted: " in kept.err.getvalue()


def test_a_kept_run_without_any_rights_may_go_on_and_says_so(store: Store, kept: Kept) -> None:
    store.faults = [("PATCH", "", forbidden("pods"))]
    assert kept.run(facts(2), grace=-13.0) == 130
    assert not kept.sealed()
    assert f"--keep: {RUN} may still be running: " in kept.err.getvalue()


def jobset_of(kept: Kept, restarts: int) -> dict[str, Any]:
    """The run as a JobSet's, with so many restarts used of one, and its Job."""
    (inner,) = kept.made("jobs")
    del kept.store.objects[next(path for path in kept.store.objects if path.endswith(f"/jobs/{RUN}"))]
    inner["metadata"]["name"] = f"{RUN}-w-0"
    kept.store.put(inner)
    jobset = job(2) | {"apiVersion": JOBSET.api, "kind": JOBSET.name}
    spec = {"failurePolicy": {"maxRestarts": 1}}
    meta = {"name": RUN, "namespace": NAMESPACE, "labels": dict(LABELS)}
    kept.store.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    return kept.store.put(jobset | {"spec": spec, "status": {"restarts": restarts}})


def test_a_jobset_with_restarts_left_would_start_its_kept_pods_again(store: Store, kept: Kept) -> None:
    jobset_of(kept, 0)
    assert kept.run(facts(2, jobset=True)) == 130
    assert "has restarts left" in kept.err.getvalue()
    assert (store.patches, store.names()) == ([], [])
    assert "is still there" not in kept.err.getvalue()


def test_a_jobset_that_ends_with_its_pods_is_kept_and_its_job_is_not_changed(
    store: Store, kept: Kept
) -> None:
    jobset = jobset_of(kept, 1)

    def ends() -> None:
        until(lambda: kept.ended() == BOTH)
        jobset["status"]["conditions"] = [{"type": "Failed", "status": "True"}]

    watched = lambda: until(lambda: store.wanted("GET", "watch=true"))  # noqa: E731
    assert kept.run(facts(2, jobset=True), watched, 0.3, interrupt, ends) == 130
    assert (kept.ended(), kept.sealed(), store.deleted) == (BOTH, False, [])
    assert f"the run {RUN} is still there" in kept.err.getvalue()


@pytest.mark.parametrize("forbids", [False, True])
def test_a_jobset_that_does_not_end_is_not_kept(
    store: Store, kept: Kept, forbids: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Job would replace a worker that was stopped while it prepared."""
    monkeypatch.setattr(stop, "_JOBSET_SECONDS", 0.5)
    jobset_of(kept, 1)
    store.faults = [("PATCH", "/pods/", forbidden("pods"))] if forbids else []
    assert kept.run(facts(2, jobset=True)) == 130
    assert "so the run is removed" in kept.err.getvalue()
    assert not [path for path, _ in store.patches if "/jobs/" in path]
    assert store.names() == []
