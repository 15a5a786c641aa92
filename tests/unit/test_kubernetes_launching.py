"""How a run ended is told and kept whatever becomes of its removal, and signals are heard until the end."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

import pytest

from tests.unit.api_answers import Answer, door
from tests.unit.api_store import Store, forbidden, refusal, storing
from tests.unit.aside import aside, interrupt, pause, until
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
from torchnet.errors import TorchnetError
from torchnet.runtimes.kubernetes import session
from torchnet.runtimes.kubernetes.closing import close
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.launching import see
from torchnet.runtimes.kubernetes.resources import JOBSET
from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.runtimes.kubernetes.wishes import Wishes
from torchnet.ui.console import Console

store = pytest.fixture(storing)
EXPIRED = refusal(401, "Unauthorized", "the token has expired")


class Seen:
    def __init__(self, store: Store, folder: Path, signals: Signals) -> None:
        self.err = io.StringIO()
        self.json = folder / "receipt.json"
        self._store, self._folder, self._signals = store, folder, signals

    def see(
        self,
        code: int,
        *,
        keep: bool = False,
        detach: bool = False,
        json_path: str | None = None,
        out: TextIO | None = None,
    ) -> int:
        for rank in range(2):
            why = failure("script", code) if code else None
            self._store.put(ended(rank, code, message(rank, code, failure=why)))
        console = Console(self.err, out or io.StringIO(), world_size=2, color=False, tty=False)
        wishes = Wishes(grace=1, keep=keep, detach=detach)
        one = door(self._store, self._folder)
        path = json_path or str(self.json)
        return see(one, facts(2), console, wishes, self._signals, json_path=path)


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as made:
        yield made


@pytest.fixture
def seen(store: Store, tmp_path: Path, signals: Signals) -> Seen:
    return Seen(store, tmp_path, signals)


@pytest.mark.parametrize("code", [0, 42])
def test_a_removal_that_fails_costs_neither_code_nor_cause_nor_file(
    store: Store, seen: Seen, code: int
) -> None:
    store.faults = [("DELETE", "", EXPIRED)]
    assert seen.see(code) == code
    assert json.loads(seen.json.read_text())["exit_code"] == code
    said = seen.err.getvalue()
    assert "the token has expired" in said
    assert f"torchnet down {RUN} -n {NAMESPACE}" in said
    assert ("root cause" in said) is bool(code)


def test_the_file_is_there_before_the_removal_begins(store: Store, seen: Seen) -> None:
    """Whoever is killed while it waits for the removal has it."""
    held = threading.Event()
    store.faults = [("DELETE", "", held)]
    found: list[bool] = []

    def look() -> None:
        while not store.wanted("DELETE", ""):
            time.sleep(0.01)
        found.append(seen.json.exists())
        held.set()

    threading.Thread(target=look, daemon=True).start()
    assert seen.see(0) == 0
    assert found == [True]
    assert store.names() == []


def test_on_standard_output_it_goes_behind_everything(
    store: Store, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also behind what still waits for a reader, more than a pipe takes."""
    store.faults = [("DELETE", "", EXPIRED)]
    line = f"2026-01-01T00:00:00.000000000Z [0] {'x' * 100}\n"
    store.logs[ended(0)["metadata"]["name"]] = line * 2000
    with slow_reader(0.5) as (file, got):
        monkeypatch.setattr(sys, "stdout", file)
        assert seen.see(0, json_path="-", out=file) == 0
    shown, begin, rest = got.partition(b"{")
    assert shown.count(b"xxx\n") == 2000
    assert json.loads(begin + rest)["run_id"] == RUN


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ((200, {}, b'{"type": "ERROR", "object": {"code": "many"}}\n'), 70, "the watch on the pods"),
        (EXPIRED, 3, "the token has expired"),
    ],
)
def test_a_watch_that_ends_is_told_with_its_exit_code_and_the_job_goes_on(
    store: Store, tmp_path: Path, signals: Signals, answer: Answer, code: int, said: str
) -> None:
    store.faults = [("GET", "watch=true", answer)]
    store.put(pod(0, phase="Running", worker=running()))
    err = io.StringIO()
    console = Console(err, io.StringIO(), world_size=2, color=False, tty=False)
    with pytest.raises(TorchnetError) as caught:
        see(door(store, tmp_path), facts(2), console, Wishes(), signals, json_path=None)
    assert caught.value.exit_code == code
    assert said in caught.value.text
    assert f"the run {RUN} goes on" in caught.value.text
    assert f"torchnet attach {RUN}" in caught.value.fix
    assert store.deleted == []


def test_a_job_that_is_left_is_named_with_the_ways_back_to_it(
    store: Store, tmp_path: Path, signals: Signals
) -> None:
    for rank in range(2):
        store.put(pod(rank, phase="Running", worker=running()))
    err = io.StringIO()
    console = Console(err, io.StringIO(), world_size=2, color=False, tty=False)
    wishes = Wishes(detach=True)
    code = see(door(store, tmp_path), facts(2), console, wishes, signals, json_path=None)
    assert (code, store.deleted) == (0, [])
    ways = [
        f"torchnet:   torchnet {word} {RUN} -n {NAMESPACE}" for word in ("attach", "logs", "status", "down")
    ]
    assert err.getvalue().splitlines()[-5:] == [
        f"torchnet: {RUN}: all workers have started; next:",
        *ways,
    ]


@pytest.mark.parametrize("code", [0, 42])
def test_one_that_ends_before_it_is_detached_stays_and_is_named(store: Store, seen: Seen, code: int) -> None:
    assert seen.see(code, detach=True) == code
    assert (len(store.names()), store.deleted) == (2, [])
    said = seen.err.getvalue().splitlines()
    assert said[-3 - bool(code) : len(said) - bool(code)] == [
        f"torchnet: the run {RUN} is still there:",
        *(f"torchnet:   torchnet {word} {RUN} -n {NAMESPACE}" for word in ("logs", "down")),
    ]


def test_one_that_fails_before_it_is_detached_is_left_to_its_agents(
    store: Store, tmp_path: Path, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_APART_SECONDS", 0.3)
    store.put(pod(0))
    store.put(ended(1, 42, message(1, 42, failure=failure("script", 42))))
    err = io.StringIO()
    console = Console(err, io.StringIO(), world_size=2, color=False, tty=False)
    wishes = Wishes(detach=True)
    code = see(door(store, tmp_path), facts(2), console, wishes, signals, json_path=None)
    assert (code, store.deleted) == (42, [])
    assert f"{RUN}: it has failed, and has not been stopped; next:" in err.getvalue()


def test_one_that_is_stopped_before_it_is_detached_is_removed(
    store: Store, tmp_path: Path, signals: Signals
) -> None:
    for rank in range(2):
        store.put(pod(rank))
    console = Console(err := io.StringIO(), io.StringIO(), world_size=2, color=False, tty=False)
    wishes = Wishes(detach=True)
    one = door(store, tmp_path)
    with aside(lambda: until(lambda: store.wanted("GET", "watch=true")), interrupt):
        code = see(one, facts(2), console, wishes, signals, json_path=None)
    assert (code, store.names()) == (130, [])
    assert "still there" not in err.getvalue()


def test_lines_of_other_threads_are_told(store: Store, tmp_path: Path, signals: Signals) -> None:
    store.put(pod(0))
    told: SimpleQueue[str] = SimpleQueue()
    console = Console(err := io.StringIO(), io.StringIO(), world_size=1, color=False, tty=False)
    one = door(store, tmp_path)
    with aside(lambda: told.put("a defect"), lambda: until(err.getvalue), interrupt):
        see(one, facts(1), console, Wishes(stops=False), signals, json_path=None, told=told)
    assert err.getvalue().startswith("torchnet: warning: a defect\n")


def test_what_is_kept_is_named(store: Store, seen: Seen) -> None:
    assert seen.see(0, keep=True) == 0
    assert f"torchnet down {RUN} -n {NAMESPACE}" in seen.err.getvalue()
    assert len(store.names()) == 2


@dataclass
class Kept:
    """A run of two workers under --keep, whose launch is told to stop in one way or another."""

    store: Store
    folder: Path
    signals: Signals
    err: io.StringIO = field(default_factory=io.StringIO)

    def run(self, known: Facts, *steps: Any, **wishes: Any) -> int:
        """Interrupted once the pods are watched, unless there are other ``steps``."""
        console = Console(self.err, io.StringIO(), world_size=2, color=False, tty=False)
        wanted = Wishes(keep=True, **wishes)
        one = door(self.store, self.folder)
        watched = lambda: until(lambda: self.store.wanted("GET", "watch=true"))  # noqa: E731
        with aside(*(steps or (watched, 0.3, interrupt))):
            return see(one, known, console, wanted, self.signals, json_path=None)

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


def test_a_kept_run_without_the_rights_on_pods_is_ended_by_its_job(store: Store, kept: Kept) -> None:
    store.faults = [("PATCH", "/pods/", forbidden("pods"))]
    assert kept.run(facts(2), grace=-13.0) == 130
    assert kept.sealed()
    assert "could not be ended where they were, and are deleted: " in kept.err.getvalue()


def test_a_kept_run_without_any_rights_may_go_on_and_says_so(store: Store, kept: Kept) -> None:
    store.faults = [("PATCH", "", forbidden("pods"))]
    assert kept.run(facts(2), grace=-13.0) == 130
    assert not kept.sealed()
    assert f"--keep: {RUN} may go on: " in kept.err.getvalue()


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_jobset_with_restarts_left_would_start_its_kept_pods_again(
    store: Store, kept: Kept, restarts: int
) -> None:
    jobset = job(2) | {"apiVersion": JOBSET.api, "kind": JOBSET.name}
    store.put(jobset | {"spec": {"failurePolicy": {"maxRestarts": 1}}, "status": {"restarts": restarts}})
    (inner,) = kept.made("jobs")
    inner["metadata"]["name"] = f"{RUN}-w-0"
    store.put(inner)
    del store.objects[next(path for path in store.objects if path.endswith(f"/jobs/{RUN}"))]
    assert kept.run(facts(2, jobset=True), grace=-13.0) == 130
    assert ("has restarts left" in kept.err.getvalue()) is not bool(restarts)
    if restarts:
        assert (kept.ended(), kept.sealed(), store.deleted) == (BOTH, True, [])
    else:
        assert store.names() == []
        assert "is still there" not in kept.err.getvalue()


def test_a_signal_in_the_removal_leaves_it_and_says_what_is_left(store: Store, seen: Seen) -> None:
    """What is there has been told to end, and nothing would hurry it."""
    store.lingers = 60
    with aside(lambda: until(lambda: store.deleted), 0.5, interrupt):
        began = time.monotonic()
        assert seen.see(0) == 0
    assert time.monotonic() - began < 4, "not after a patience of its own"
    assert store.wanted("DELETE", "gracePeriodSeconds") == 0
    assert seen.err.getvalue().count("still there") == 1
    assert f"torchnet down {RUN} -n {NAMESPACE}" in seen.err.getvalue()


BROKEN: Answer = (200, {}, {"items": [{}]})  # no metadata


@pytest.mark.parametrize("signalled", [False, True])
def test_a_defect_in_the_removal_costs_neither_code_nor_file(
    store: Store, seen: Seen, signalled: bool
) -> None:
    held = threading.Event()
    store.faults = [("GET", "/secrets", held), ("GET", "/secrets", BROKEN)]

    def work() -> None:
        until(lambda: store.wanted("GET", "/secrets"))
        if signalled:
            interrupt()
            pause(0.5)
        held.set()

    with aside(work):
        assert seen.see(42) == 42
    assert json.loads(seen.json.read_text())["exit_code"] == 42
    assert "it failed: KeyError: 'metadata'" in seen.err.getvalue()
    assert f"torchnet down {RUN} -n {NAMESPACE}" in seen.err.getvalue()


def test_no_thread_for_the_removal_is_told(store: Store, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "call":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert seen.see(42) == 42
    assert "can't start new thread" in seen.err.getvalue()


def filled(file: TextIO) -> Console:
    """A console with more in it than a pipe takes."""
    console = Console(file, file, world_size=1, color=False, tty=False)
    for number in range(4000):
        console.event({"event": "output", "rank": 0, "stream": "stdout", "data": f"{number:060d}"})
    assert console.pending
    return console


@contextmanager
def unread() -> Iterator[Console]:
    """A console whose reader does not read, and what it has to say does not fit into the pipe."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        yield filled(file)
        os.close(reading)


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_who_does_not_read_is_not_waited_for_after_a_signal(signals: Signals, seconds: float) -> None:
    with unread() as console:
        began = time.monotonic()
        with aside(seconds, interrupt):
            close(console, signals)
        assert time.monotonic() - began < 5


def test_nor_where_the_job_was_to_end(signals: Signals) -> None:
    with unread() as console:
        began = time.monotonic()
        close(console, signals, stopped=True)
        assert time.monotonic() - began < 5


def test_who_reads_slowly_gets_everything(signals: Signals) -> None:
    with slow_reader(0.5) as (file, got):
        close(filled(file), signals)
    assert got.splitlines() == [f"[rank 0] {number:060d}".encode() for number in range(4000)]
