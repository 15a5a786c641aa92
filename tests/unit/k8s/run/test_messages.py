"""The lines of a launcher on a cluster, from a normal start to a forced end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import golden
from tests.unit.api_store import Store, storing
from tests.unit.aside import interrupt
from tests.unit.k8s.run.test_attempts import TRAINS, Workload, waits
from tests.unit.k8s.run.test_monitor import Watched, asked
from tests.unit.kubernetes_objects import facts, job, pod, running, terminated, waiting, workers
from torchnet.k8s.run import workload_status
from torchnet.k8s.run.jobset_restart import JobSetRestart
from torchnet.k8s.run.monitor import RunOptions
from torchnet.k8s.run.node_loss import NodeLoss
from torchnet.k8s.run.pending import PendingReasons
from torchnet.k8s.run.worker_set import WorkerSet
from torchnet.signals import Signals

store = pytest.fixture(storing)
PULL = waiting("ImagePullBackOff", 'Back-off pulling image "team/train:1"')
GATED = {"status": "False", "reason": "SchedulingGated"}
UNSCHEDULED = {
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/2 nodes: 2 Insufficient nvidia.com/gpu",
}


@pytest.fixture
def watched(store: Store, tmp_path: Path) -> Iterator[Watched]:
    with Signals() as signals:
        yield Watched(store, tmp_path, signals)


def start() -> Iterator[str]:
    """The reasons of one worker's start, one after the other."""
    reasons, clock = PendingReasons(facts(2)), itertools.count(0.0, 20.0)
    stages: list[dict[str, Any]] = [
        {"scheduled": GATED},
        {"scheduled": UNSCHEDULED},
        {},
        {"prepare": PULL},
        {"prepare": running()},
        {"prepare": terminated(0)},
        {"prepare": terminated(0), "worker": running(), "started": False},
    ]
    for there in (
        workers(),
        *(workers(pod(0, phase="Running", worker=running()), pod(1, **one)) for one in stages),
    ):
        for _ in range(2):
            yield from reasons.lines(there, {}, "", next(clock))


def lost_node() -> list[str]:
    """The lines about a JobSet's worker whose pod is deleted while its node does not respond."""
    found: list[str] = []
    info, worker_set = facts(2, jobset=True), WorkerSet(2, restarts=True, replaces=True)
    loss = NodeLoss(info, found.append)
    restart = JobSetRestart(info, worker_set, loss, found.append)
    leaving = pod(1, phase="Running", worker=running(), attempt=0)
    leaving["metadata"] |= {"deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30}
    worker_set.relist([pod(0, phase="Running", worker=running(), attempt=0), leaving])
    there = worker_set.workers()
    for now in (0.0, 60.0):
        loss.look(there, now)
        restart.look(now, 25.0, last=False)
    ended = there[1].ended
    return [*found, ended.why if ended else "not lost"]


def test_the_wording_of_a_run(store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_status, "POLL_SECONDS", 0.1)
    sections: dict[str, str] = {
        "start": "\n".join(start()),
        "lost node": "\n".join(lost_node()),
    }

    def run(title: str, options: RunOptions, *steps: Callable[[], object] | float) -> None:
        begin = len(watched.err.getvalue())
        outcome = watched.run(facts(2), options, asked(store, "watch=true"), *steps)
        reason = outcome.receipt["reason"] if outcome.receipt else outcome.left
        sections[title] = f"{watched.err.getvalue()[begin:]}exit code {outcome.code}: {reason}"
        for collection in (store.objects, store.asked):
            collection.clear()

    one = Workload(store, TRAINS)
    run("suspension", RunOptions(grace=0), one.suspend, waits(watched), one.resume, 0.5, one.succeed)
    store.put(job(2))
    for rank in range(2):
        store.put(pod(rank, prepare=running()))
    run("timeout", RunOptions(start_timeout=0.3))
    for title, keep, method in (("two signals", False, "DELETE"), ("two signals, --keep", True, "PATCH")):
        Workload(store, TRAINS)
        store.lingers = 60
        run(title, RunOptions(keep=keep), interrupt, asked(store, "/pods", method), 0.3, interrupt)
    golden.check("k8s-run.txt", "\n".join(f"# {title}\n{text.strip()}" for title, text in sections.items()))
