"""A launcher's loop against a server: whose word the job's end is, and when there is nobody to wait for any more."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import client
from tests.unit.api_store import Store, forbidden, storing
from tests.unit.aside import aside, interrupt, until
from tests.unit.kubernetes_objects import (
    NAMESPACE,
    RUN,
    ended,
    facts,
    failure,
    job,
    message,
    pod,
    running,
    terminated,
    waiting,
)
from tests.unit.slow_reader import slow_reader
from torchnet.console.console import Console
from torchnet.errors import TorchnetError
from torchnet.k8s.client.kinds import JOBSET, PROTECTION, WORKLOADS
from torchnet.k8s.run import monitor
from torchnet.k8s.run.monitor import RunMonitor, RunOptions, RunOutcome
from torchnet.k8s.run.run_info import RunInfo
from torchnet.signals import Signals

store = pytest.fixture(storing)
FAILED = failure("script", 42)
ATTACHED = RunOptions(stops=False)


class Watched:
    """A session on the store's pods."""

    def __init__(self, store: Store, folder: Path, signals: Signals) -> None:
        self.err = io.StringIO()
        self.attempts: list[tuple[int, dict[str, Any]]] = []
        self._store, self._folder, self._signals = store, folder, signals

    def run(self, info: RunInfo, options: RunOptions, *steps: Callable[[], object] | float) -> RunOutcome:
        """Its outcome, while ``steps`` are taken aside."""
        one = client(self._store, self._folder)
        console = Console(self.err, io.StringIO(), world_size=info.nnodes, color=False, tty=False)
        try:
            with aside(*steps):
                told = lambda number, receipt: self.attempts.append((number, receipt))  # noqa: E731
                return RunMonitor(one, info, console, options, self._signals, on_attempt=told).run()
        finally:
            one.stop.set()


@pytest.fixture
def watched(store: Store, tmp_path: Path) -> Iterator[Watched]:
    with Signals() as signals:
        yield Watched(store, tmp_path, signals)


def asked(store: Store, pattern: str, method: str = "GET") -> Callable[[], None]:
    """A step: wait until this has been asked for."""
    return lambda: until(lambda: store.wanted(method, pattern))


def all_ended(store: Store, code: int = 0) -> None:
    why = FAILED if code else None
    for rank in range(2):
        store.put(ended(rank, code, message(rank, code, failure=why)))


@pytest.mark.parametrize("code", [0, 42])
@pytest.mark.parametrize("options", [RunOptions(), ATTACHED], ids=["launch", "attach"])
def test_a_signal_when_all_have_ended_shortens_the_reading_alone(
    store: Store, watched: Watched, code: int, options: RunOptions
) -> None:
    """The last lines do not come, and whoever waits for them presses Ctrl-C."""
    all_ended(store, code)
    held = threading.Event()
    store.faults = [("GET", "/log", held)]
    began = time.monotonic()
    outcome = watched.run(facts(2), options, asked(store, "/log"), interrupt)
    held.set()
    assert time.monotonic() - began < 5
    assert outcome.receipt is not None
    assert outcome.code == code
    assert "SIGINT" not in outcome.receipt["reason"]
    assert store.deleted == []


KILLED = pod(1, phase="Failed", worker=terminated(137, None, "OOMKilled"))


@pytest.mark.parametrize(
    ("first", "code", "kind"),
    [(ended(1, 42, message(1, 42, failure=FAILED)), 42, "script"), (KILLED, 70, "lost")],
    ids=["script", "lost"],
)
def test_a_signal_after_a_failure_leaves_it_the_jobs(
    store: Store, watched: Watched, first: dict[str, Any], code: int, kind: str
) -> None:
    """Rank 1 has failed, the others are being told: Ctrl-C in that time hurries it, and is not why it ended."""
    store.put(pod(0, phase="Running", worker=running()))
    store.put(first)
    outcome = watched.run(facts(2), RunOptions(), lambda: until(watched.err.getvalue), interrupt)
    assert outcome.receipt is not None
    assert (outcome.code, outcome.receipt["failure"]["kind"]) == (code, kind)
    assert "stopping" in watched.err.getvalue()
    assert store.names() == []


def test_a_signal_before_any_end_is_why_the_job_ended(store: Store, watched: Watched) -> None:
    for rank in range(2):
        store.put(pod(rank, phase="Running", worker=running()))
    outcome = watched.run(facts(2), RunOptions(), asked(store, "watch=true"), interrupt)
    assert outcome.receipt is not None
    assert (outcome.code, outcome.receipt["reason"]) == (130, "stopped by SIGINT")
    assert store.names() == []


@pytest.mark.parametrize(
    ("body", "hurried"),
    [
        (pod(0, prepare=running()), 1),
        (pod(0, phase="Running", worker=running(), started=False), 0),
        (pod(0, phase="Running", worker=running()), 0),
    ],
    ids=["prepares", "joins", "trains"],
)
def test_who_has_nothing_to_save_yet_has_a_second_for_its_end(
    store: Store, watched: Watched, body: dict[str, Any], hurried: int
) -> None:
    """An agent that has just begun may not have heard that it is to end; a training has its whole time."""
    store.put(body)
    outcome = watched.run(facts(1), RunOptions(), asked(store, "watch=true"), interrupt)
    assert outcome.code == 130
    assert store.wanted("DELETE", "gracePeriodSeconds=1") == hurried


def test_attach_is_left_with_the_signals_code_and_the_job_goes_on(store: Store, watched: Watched) -> None:
    store.put(pod(0, phase="Running", worker=running()))
    store.put(ended(1, 42, message(1, 42, failure=FAILED)))
    outcome = watched.run(facts(2), ATTACHED, asked(store, "watch=true"), interrupt)
    assert (outcome.receipt, outcome.code) == (None, 130)
    assert len(store.names()) == 2


def test_a_time_out_after_a_failure_leaves_it_the_jobs(store: Store, watched: Watched) -> None:
    store.put(pod(0, phase="Running", worker=running()))
    store.put(KILLED)
    outcome = watched.run(facts(2), RunOptions(timeout=1.0))
    assert outcome.code == 70


def plain(rank: int, **more: Any) -> dict[str, Any]:
    body = pod(rank, **more)
    return body | {"metadata": body["metadata"] | {"name": f"{RUN}-{rank}"}}


@pytest.mark.parametrize("options", [RunOptions(), ATTACHED], ids=["launch", "attach"])
def test_plain_pods_that_were_deleted_before_they_started_are_nobody_to_wait_for(
    store: Store, watched: Watched, options: RunOptions
) -> None:
    for rank in range(2):
        store.put(plain(rank, prepare=waiting("PodInitializing")))
    store.faults = [("GET", "watch=true", (410, {}, {"code": 410, "message": "too old"}))]
    outcome = watched.run(facts(2, pods=True), options, asked(store, "watch=true"), store.objects.clear)
    assert outcome.code == 70
    assert outcome.receipt is not None
    assert "its pod was deleted" in outcome.receipt["reason"]


def test_plain_pods_that_are_gone_before_the_first_look(watched: Watched) -> None:
    assert watched.run(facts(2, pods=True), ATTACHED).code == 70


def test_one_plain_pod_that_was_deleted_before_it_started_is_a_lost_worker(
    store: Store, watched: Watched
) -> None:
    """Nobody makes another one, and the others would wait for it until their own time is over."""
    for rank in range(2):
        store.put(plain(rank, prepare=running()))
    gone = f"/api/v1/namespaces/{NAMESPACE}/pods/{RUN}-1"
    store.faults = [("GET", "watch=true", (410, {}, {"code": 410, "message": "too old"}))]
    steps = asked(store, "watch=true"), lambda: store.objects.pop(gone)
    outcome = watched.run(facts(2, pods=True), RunOptions(grace=1), *steps)
    assert outcome.code == 70
    assert f"lost {RUN}-1" in str(outcome.receipt)
    assert store.names() == [], "the other one is stopped"


def test_a_jobs_pod_that_was_deleted_before_it_started_is_made_anew(store: Store, watched: Watched) -> None:
    store.put(job(1))
    store.put(plain(0, prepare=waiting("PodInitializing")))
    store.faults = [("GET", "watch=true", (410, {}, {"code": 410, "message": "too old"}))]

    gone = f"/api/v1/namespaces/{NAMESPACE}/pods/{RUN}-0"
    made = lambda: store.put(ended(0, 0, message(0), uid="new"))  # noqa: E731
    steps = asked(store, "watch=true"), lambda: store.objects.pop(gone), 1.0, made
    assert watched.run(facts(1), ATTACHED, *steps).code == 0


def test_a_jobsets_failed_attempt_is_not_the_end_while_it_starts_another(
    store: Store, watched: Watched
) -> None:
    jobset = store.put(job(1) | {"apiVersion": JOBSET.api, "kind": JOBSET.name})
    store.put(ended(0, 42, message(0, 42, failure=FAILED), attempt=0))
    store.faults = [("GET", "watch=true", (410, {}, {"code": 410, "message": "too old"}))]

    def restarted() -> None:
        store.put(ended(0, 0, message(0), uid="new", attempt=1))
        before = store.wanted("GET", "/pods")
        until(lambda: store.wanted("GET", "/pods") > before + 3)  # a list among them, and its answer taken
        jobset["status"] = {"restarts": 1, "conditions": [{"type": "Completed", "status": "True"}]}

    outcome = watched.run(
        facts(1, jobset=True), RunOptions(), asked(store, f"/jobsets/{RUN}$"), 1.0, restarted
    )
    assert outcome.receipt is not None
    assert (outcome.code, outcome.receipt["restarts"]) == (0, 1)


def test_a_jobset_that_has_ended_is_waited_for_until_the_watch_knows_it_too(
    store: Store, watched: Watched
) -> None:
    """What it says of itself may be ahead of what its last pods' watch has brought."""
    jobset = store.put(job(1) | {"apiVersion": JOBSET.api, "kind": JOBSET.name})
    jobset["status"] = {"restarts": 1, "conditions": [{"type": "Completed", "status": "True"}]}
    store.put(ended(0, 42, message(0, 42, failure=FAILED), attempt=0))
    store.faults = [("GET", "watch=true", (410, {}, {"code": 410, "message": "too old"}))]
    last = lambda: store.put(ended(0, 0, message(0), uid="new", attempt=1))  # noqa: E731
    outcome = watched.run(facts(1, jobset=True), RunOptions(), asked(store, f"/jobsets/{RUN}$"), 1.0, last)
    assert outcome.code == 0


def test_a_jobset_whose_last_pods_are_never_seen_is_not_waited_for_for_ever(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "WATCH_LAG_SECONDS", 1.0)
    jobset = store.put(job(1) | {"apiVersion": JOBSET.api, "kind": JOBSET.name})
    jobset["status"] = {"restarts": 1, "conditions": [{"type": "Completed", "status": "True"}]}
    store.put(ended(0, 42, message(0, 42, failure=FAILED), attempt=0))
    began = time.monotonic()
    assert watched.run(facts(1, jobset=True), RunOptions(timeout=15.0)).code == 42
    assert time.monotonic() - began < 12, "not for all the time that the job has"


def test_a_jobset_that_has_ended_and_whose_pods_are_gone_has_an_end(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "WATCH_LAG_SECONDS", 1.0)
    jobset = store.put(job(1) | {"apiVersion": JOBSET.api, "kind": JOBSET.name})
    jobset["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    assert watched.run(facts(1, jobset=True), ATTACHED).code == 70


BROKEN = [
    pod(0, phase="Running", worker=running(), attempt=0),
    pod(1, phase="Failed", worker=terminated(137), attempt=0),
]


def jobset_of(store: Store, restarts: int) -> dict[str, Any]:
    """A JobSet with so many restarts left, and its broken gang."""
    made = store.put(job(2) | {"apiVersion": JOBSET.api, "kind": JOBSET.name})
    made["spec"] = {"failurePolicy": {"maxRestarts": restarts}}
    for one in BROKEN:
        store.put(one)
    store.faults = [("GET", "watch=true", (410, {}, {"code": 410, "message": "too old"}))]
    return made


def test_the_restart_of_a_jobsets_gang_has_its_own_time(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the worker that holds it up is named."""
    monkeypatch.setattr(monitor, "PATIENCE_SECONDS", 1.0)
    jobset = jobset_of(store, 1)

    def restarted() -> None:
        until(lambda: "has not terminated" in watched.err.getvalue())
        for rank in range(2):
            store.objects.pop(f"/api/v1/namespaces/{NAMESPACE}/pods/{RUN}-{rank}-abcde")
        jobset["status"] = {"restarts": 1}

    begun = lambda: until(lambda: "no pod yet" in watched.err.getvalue())  # noqa: E731

    def trained() -> None:
        for rank in range(2):
            store.put(ended(rank, 0, message(rank), uid=f"new-{rank}", attempt=1))
        jobset["status"] |= {"conditions": [{"type": "Completed", "status": "True"}]}

    outcome = watched.run(
        facts(2, jobset=True), RunOptions(grace=0, start_timeout=60), restarted, begun, trained
    )
    assert outcome.receipt is not None
    assert (outcome.code, outcome.receipt["restarts"]) == (0, 1)
    assert f"(restart 1): lost {RUN}-1" in watched.err.getvalue()
    assert (store.patches, store.deleted) == ([], [])


@pytest.mark.parametrize("keep", [False, True])
def test_the_last_attempt_of_a_jobsets_gang_ends_the_job(
    store: Store, watched: Watched, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    monkeypatch.setattr(monitor, "PATIENCE_SECONDS", 1.0)
    jobset_of(store, 0)
    outcome = watched.run(facts(2, jobset=True), RunOptions(grace=0, keep=keep))
    assert outcome.receipt is not None
    assert (outcome.code, outcome.receipt["failure"]["kind"]) == (70, "lost")
    assert "has not terminated" not in watched.err.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_launcher_at_once(store: Store, watched: Watched, number: int) -> None:
    """The workers have their time to the end, and the cluster deletes them."""
    for rank in range(2):
        store.put(pod(rank, phase="Running", worker=running()))
    store.lingers = 60
    sent: list[float] = []

    def again() -> None:
        sent.append(time.monotonic())
        interrupt(number)

    send = partial(interrupt, number)
    steps = asked(store, "watch=true"), send, asked(store, "/pods", "DELETE"), 0.2, again
    outcome = watched.run(facts(2), RunOptions(), *steps)
    assert time.monotonic() - sent[0] < 1
    assert (outcome.receipt, outcome.code, outcome.commands) == (None, 128 + number, ("down",))
    assert outcome.left == "it is being deleted"
    assert all("deletionTimestamp" in one["metadata"] for one in store.objects.values())
    assert {path.partition("?")[0].rpartition("/")[2] for _, _, path, _ in store.asked} <= PLURALS


PLURALS = {
    *(kind.plural for kind in (*WORKLOADS, *PROTECTION)),
    "log",
    RUN,
    *(f"{RUN}-{rank}-abcde" for rank in range(2)),
}


def test_two_signals_in_one_go_stop_the_job_all_the_same(store: Store, watched: Watched) -> None:
    """As some service managers send them."""
    store.put(pod(0, phase="Running", worker=running()))
    both = partial(interrupt, signal.SIGHUP), partial(interrupt, signal.SIGTERM)
    outcome = watched.run(facts(1), RunOptions(), asked(store, "watch=true"), *both)
    assert (outcome.code, outcome.left, store.names()) == (129, "it is being deleted", [])


@pytest.mark.parametrize(
    ("keep", "method", "commands"), [(False, "DELETE", ("down",)), (True, "PATCH", ("logs", "down"))]
)
def test_a_second_signal_says_that_the_stop_is_not_confirmed(
    store: Store, watched: Watched, keep: bool, method: str, commands: tuple[str, ...]
) -> None:
    store.put(pod(0, phase="Running", worker=running()))
    held = threading.Event()
    store.faults = [(method, "/pods", held)]
    steps = asked(store, "watch=true"), interrupt, asked(store, "/pods", method), interrupt
    outcome = watched.run(facts(1), RunOptions(keep=keep), *steps)
    held.set()
    assert (outcome.code, outcome.commands) == (130, commands)
    assert "may still be running" in outcome.left


def test_a_second_signal_says_that_the_stop_was_refused(store: Store, watched: Watched) -> None:
    store.put(pod(0, phase="Running", worker=running()))
    store.faults = [("DELETE", "", forbidden("pods"))]
    steps = asked(store, "watch=true"), interrupt, asked(store, f"/pods/{RUN}", "DELETE"), 0.3, interrupt
    outcome = watched.run(facts(1), RunOptions(), *steps)
    assert (outcome.code, outcome.left) == (130, "stopping it failed; it may still be running")


def test_who_reads_slowly_gets_every_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for the logs' last lines is theirs alone: the reader pauses for longer."""
    monkeypatch.setattr(monitor, "DRAIN_SECONDS", 0.5)
    one = ended(0, 0, message(0))
    store.put(one)
    count = 12000  # more than the console keeps
    store.logs[one["metadata"]["name"]] = "".join(
        f"2026-01-01T00:00:{number / 1000:012.9f}Z [0] {number:0400d}\n" for number in range(count)
    )
    with slow_reader(2) as (out, got), Signals() as signals:
        console = Console(io.StringIO(), out, world_size=1, color=False, tty=False)
        outcome = RunMonitor(client(store, tmp_path), facts(1), console, RunOptions(), signals).run()
        console.close()
    assert outcome.code == 0
    assert [int(line.rpartition(b" ")[2]) for line in got.splitlines()] == list(range(count))


def test_who_looks_on_is_not_told_of_starts_that_were_before(store: Store, watched: Watched) -> None:
    jobset = store.put(job(1) | {"apiVersion": JOBSET.api, "kind": JOBSET.name})
    jobset["status"] = {"restarts": 2, "conditions": [{"type": "Completed", "status": "True"}]}
    store.put(ended(0, 42, message(0, 42, failure=FAILED), attempt=1))
    store.put(ended(0, 0, message(0), uid="new", attempt=2))
    assert watched.run(facts(1, jobset=True), ATTACHED).code == 0
    assert "restarts" not in watched.err.getvalue()


@pytest.mark.parametrize("count", [2, 30])
@pytest.mark.parametrize("kind", ["job", "jobset", "pods"])
def test_a_job_that_runs_is_hardly_asked_for(store: Store, watched: Watched, kind: str, count: int) -> None:
    """Apart from the streams, which the store ends after 0.2 s: a real server keeps them for minutes."""
    info = facts(count, jobset=kind == "jobset", pods=kind == "pods")
    if kind == "jobset":
        store.put(job(count) | {"apiVersion": JOBSET.api, "kind": JOBSET.name})
    elif kind == "job":
        store.put(job(count))
    for rank in range(count):
        store.put(pod(rank, phase="Running", prepare=terminated(0), worker=running()))
    questions: list[int] = []

    def count_them() -> None:
        streams = ("watch=true", "follow=true")
        paths = [path for _, _, path, _ in store.asked if not any(stream in path for stream in streams)]
        questions.append(len(paths))

    options = RunOptions(stops=False, ranks=(0,))
    hang = lambda: store.faults.append(("GET", "", forbidden("hang")))  # noqa: E731
    with pytest.raises(TorchnetError, match="hang"):
        watched.run(info, options, 4.0, count_them, 6.0, count_them, hang)
    assert questions[1] - questions[0] <= 2
