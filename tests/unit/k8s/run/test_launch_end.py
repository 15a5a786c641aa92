"""How a run ended is told and kept whatever becomes of its removal, and signals are heard until the end."""

from __future__ import annotations

import io
import json
import signal
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

import pytest

from tests.unit.api_answers import Answer, client
from tests.unit.api_store import Store, refusal, storing
from tests.unit.aside import aside, hearing, interrupt, pause, until
from tests.unit.kubernetes_objects import (
    NAMESPACE,
    RUN,
    ended,
    facts,
    failure,
    message,
    pod,
    running,
)
from tests.unit.slow_reader import slow_reader
from torchnet.console.console import Console
from torchnet.errors import TorchnetError
from torchnet.k8s.run import deletion, monitor
from torchnet.k8s.run.launch import monitor_and_report
from torchnet.k8s.run.monitor import RunOptions
from torchnet.signals import Signals

store, signals = pytest.fixture(storing), pytest.fixture(hearing)
EXPIRED = refusal(401, "Unauthorized", "the token has expired")


class Seen:
    def __init__(self, store: Store, folder: Path, signals: Signals) -> None:
        self.err = io.StringIO()
        self.json = folder / "receipt.json"
        self._store, self._folder, self._signals = store, folder, signals

    def monitor_and_report(
        self,
        code: int,
        *,
        keep: bool = False,
        detach: bool = False,
        measure: bool = False,
        json_path: str | None = None,
        out: TextIO | None = None,
    ) -> int:
        for rank in range(2):
            why = failure("script", code) if code else None
            self._store.put(ended(rank, code, message(rank, code, failure=why)))
        console = Console(self.err, out or io.StringIO(), world_size=2, color=False, tty=False)
        options = RunOptions(grace=1, keep=keep, detach=detach, measure=measure)
        one = client(self._store, self._folder)
        path = json_path or str(self.json)
        return monitor_and_report(one, facts(2), console, options, self._signals, json_path=path)


@pytest.fixture
def seen(store: Store, tmp_path: Path, signals: Signals) -> Seen:
    return Seen(store, tmp_path, signals)


@pytest.mark.parametrize("code", [0, 42])
def test_a_removal_that_fails_costs_neither_code_nor_cause_nor_file(
    store: Store, seen: Seen, code: int
) -> None:
    store.faults = [("DELETE", "", EXPIRED)]
    assert seen.monitor_and_report(code) == code
    assert json.loads(seen.json.read_text())["exit_code"] == code
    said = seen.err.getvalue()
    assert "the token has expired" in said
    assert f"torchnet down {RUN} -n {NAMESPACE}" in said
    assert ("root cause" in said) is bool(code)


@pytest.mark.parametrize("measure", [False, True])
def test_samples_that_were_asked_for_and_did_not_come_are_missed(seen: Seen, measure: bool) -> None:
    assert seen.monitor_and_report(0, measure=measure) == 0
    measured = json.loads(seen.json.read_text())["measured"]
    assert (measured["why"] if measured else "") == ("the workers sent no samples" if measure else "")


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
    assert seen.monitor_and_report(0) == 0
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
        assert seen.monitor_and_report(0, json_path="-", out=file) == 0
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
        monitor_and_report(client(store, tmp_path), facts(2), console, RunOptions(), signals, json_path=None)
    assert caught.value.exit_code == code
    assert said in caught.value.text
    assert f"the run {RUN}" in caught.value.text
    assert f"torchnet attach {RUN}" in caught.value.fix
    assert store.deleted == []


def test_a_job_that_is_left_is_named_with_the_ways_back_to_it(
    store: Store, tmp_path: Path, signals: Signals
) -> None:
    for rank in range(2):
        store.put(pod(rank, phase="Running", worker=running()))
    err = io.StringIO()
    console = Console(err, io.StringIO(), world_size=2, color=False, tty=False)
    options = RunOptions(detach=True)
    code = monitor_and_report(client(store, tmp_path), facts(2), console, options, signals, json_path=None)
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
    assert seen.monitor_and_report(code, detach=True) == code
    assert (len(store.names()), store.deleted) == (2, [])
    said = seen.err.getvalue().splitlines()
    assert said[-3 - bool(code) : len(said) - bool(code)] == [
        f"torchnet: the run {RUN} is still there:",
        *(f"torchnet:   torchnet {word} {RUN} -n {NAMESPACE}" for word in ("logs", "down")),
    ]


def test_one_that_fails_before_it_is_detached_is_left_to_its_agents(
    store: Store, tmp_path: Path, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_START_FAILURE_SECONDS", 0.3)
    store.put(pod(0))
    store.put(ended(1, 42, message(1, 42, failure=failure("script", 42))))
    err = io.StringIO()
    console = Console(err, io.StringIO(), world_size=2, color=False, tty=False)
    options = RunOptions(detach=True)
    code = monitor_and_report(client(store, tmp_path), facts(2), console, options, signals, json_path=None)
    assert (code, store.deleted) == (42, [])
    assert f"{RUN}: it failed and was not stopped; next:" in err.getvalue()


def test_one_that_is_stopped_before_it_is_detached_is_removed(
    store: Store, tmp_path: Path, signals: Signals
) -> None:
    for rank in range(2):
        store.put(pod(rank))
    console = Console(err := io.StringIO(), io.StringIO(), world_size=2, color=False, tty=False)
    options = RunOptions(detach=True)
    one = client(store, tmp_path)
    with aside(lambda: until(lambda: store.wanted("GET", "watch=true")), interrupt):
        code = monitor_and_report(one, facts(2), console, options, signals, json_path=None)
    assert (code, store.names()) == (130, [])
    assert "still there" not in err.getvalue()


def test_lines_of_other_threads_are_told(store: Store, tmp_path: Path, signals: Signals) -> None:
    store.put(pod(0))
    told: SimpleQueue[str] = SimpleQueue()
    console = Console(err := io.StringIO(), io.StringIO(), world_size=1, color=False, tty=False)
    one = client(store, tmp_path)
    with aside(lambda: told.put("a defect"), lambda: until(err.getvalue), interrupt):
        monitor_and_report(
            one, facts(1), console, RunOptions(stops=False), signals, json_path=None, warnings=told
        )
    assert err.getvalue().startswith("torchnet: warning: a defect\n")


def test_what_is_kept_is_named(store: Store, seen: Seen) -> None:
    assert seen.monitor_and_report(0, keep=True) == 0
    assert f"torchnet down {RUN} -n {NAMESPACE}" in seen.err.getvalue()
    assert len(store.names()) == 2


def test_a_signal_in_the_removal_leaves_it_and_says_what_is_left(store: Store, seen: Seen) -> None:
    """What is there has been told to end, and nothing would hurry it."""
    store.lingers = 60
    with aside(lambda: until(lambda: store.deleted), 0.5, interrupt):
        began = time.monotonic()
        assert seen.monitor_and_report(0) == 0
    assert time.monotonic() - began < 4, "not after a patience of its own"
    assert store.wanted("DELETE", "gracePeriodSeconds") == 0
    assert seen.err.getvalue().count("not deleted: pods/") == 1
    assert f"torchnet down {RUN} -n {NAMESPACE}" in seen.err.getvalue()


def test_a_second_signal_in_the_removal_does_not_wait_for_a_slow_server(
    store: Store, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers all the time, so that it is not silent."""
    real = deletion._list

    def slow(*words: Any, **more: Any) -> list[dict[str, Any]]:
        time.sleep(0.4)
        return real(*words, **more)

    monkeypatch.setattr(deletion, "_list", slow)
    held = threading.Event()
    store.faults = [("GET", "/log", held)]
    sent: list[float] = []

    def twice() -> None:
        until(lambda: store.wanted("GET", "/log"))
        interrupt()
        until(lambda: store.wanted("GET", r"/jobs\?"))
        sent.append(time.monotonic())
        interrupt()

    with aside(twice):
        assert seen.monitor_and_report(0) == 0
    held.set()
    assert time.monotonic() - sent[0] < 1
    assert f"torchnet down {RUN} -n {NAMESPACE}" in seen.err.getvalue()


def test_a_removal_after_two_signals_is_begun(store: Store, seen: Seen) -> None:
    """They came when the launcher read the last lines: it does not wait for the cluster."""
    store.lingers = 60
    held = threading.Event()
    store.faults = [("GET", "/log", held)]
    sent: list[float] = []

    def twice() -> None:
        until(lambda: store.wanted("GET", "/log"))
        sent.append(time.monotonic())
        interrupt()
        interrupt(signal.SIGTERM)  # the kernel merges two of one number

    with aside(twice):
        assert seen.monitor_and_report(0) == 0
    held.set()
    assert time.monotonic() - sent[0] < 1
    assert all("deletionTimestamp" in one["metadata"] for one in store.objects.values())
    assert f"torchnet down {RUN} -n {NAMESPACE}" in seen.err.getvalue()


def test_a_launcher_that_is_left_names_the_command_also_where_it_is_quiet(
    store: Store, tmp_path: Path, signals: Signals
) -> None:
    store.put(pod(0, phase="Running", worker=running()))
    store.lingers = 60
    console = Console(err := io.StringIO(), io.StringIO(), world_size=1, quiet=True, color=False, tty=False)
    one = client(store, tmp_path)
    steps = lambda: until(lambda: store.wanted("GET", "watch=true")), interrupt, 0.3, interrupt
    with aside(*steps):
        assert monitor_and_report(one, facts(1), console, RunOptions(), signals, json_path=None) == 130
    assert f"torchnet down {RUN} -n {NAMESPACE}" in err.getvalue()


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
        assert seen.monitor_and_report(42) == 42
    assert json.loads(seen.json.read_text())["exit_code"] == 42
    assert "KeyError: 'metadata'" in seen.err.getvalue()
    assert f"torchnet down {RUN} -n {NAMESPACE}" in seen.err.getvalue()


def test_no_thread_for_the_removal_is_told(store: Store, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "call":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert seen.monitor_and_report(42) == 42
    assert "can't start new thread" in seen.err.getvalue()
