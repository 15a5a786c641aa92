"""``torchnet logs``: each line once, as fast as it is read, and an end also where there is nothing to wait for."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import client, kubeconfig
from tests.unit.api_store import Store, forbidden, storing
from tests.unit.aside import aside, hearing, interrupt, pause
from tests.unit.kubernetes_objects import NAMESPACE, RUN, ended, facts, job, message, pod, running
from tests.unit.slow_reader import slow_reader
from torchnet.agent.events import BACKLOG
from torchnet.cli import main
from torchnet.console.console import Console
from torchnet.errors import ClusterError
from torchnet.k8s.run.log_command import LogReading
from torchnet.k8s.run.outcome import settle
from torchnet.k8s.run.worker_set import worker
from torchnet.signals import Signals

store, signals = pytest.fixture(storing), pytest.fixture(hearing)


def put(store: Store, body: dict[str, Any], lines: list[str]) -> None:
    store.put(body)
    text = "".join(f"2026-01-01T00:00:{at:012.9f}Z {line}\n" for at, line in enumerate(lines))
    store.logs[body["metadata"]["name"]] = text


def console(err: Any, out: Any) -> Console:
    return Console(err, out, world_size=2, color=False, tty=False)


def test_the_lines_of_all_workers_each_once(store: Store, tmp_path: Path, signals: Signals) -> None:
    for rank in range(2):
        put(
            store,
            ended(rank, 0, message(rank)),
            [f"[{rank}] step 1", f"[{rank}] step 1", "torchnet: warning: x"],
        )
    err, out = io.StringIO(), io.StringIO()
    one = LogReading(client(store, tmp_path), facts(2), console(err, out), (), follow=False)
    assert one.show(signals) == 0
    assert out.getvalue().count("step 1") == 4
    assert err.getvalue().count("warning: x") == 1, "what all agents say is said once"


def test_the_receipt_is_shown_behind_all_lines_and_once(
    store: Store, tmp_path: Path, signals: Signals
) -> None:
    last = message(0)
    receipt = settle(facts(1), {0: worker(ended(0, 0, last))})
    put(store, ended(0, 0, last), [f"torchnet: receipt: {json.dumps(receipt)}", "torchnet: warning: x"])
    err = io.StringIO()
    one = LogReading(client(store, tmp_path), facts(1), console(err, io.StringIO()), (), follow=False)
    assert one.show(signals) == 0
    warned, told, _ = err.getvalue().partition("receipt of")
    assert ("warning: x" in warned, bool(told), err.getvalue().count("receipt of")) == (True, True, 1)


def test_followed_to_the_workers_end(store: Store, tmp_path: Path, signals: Signals) -> None:
    put(store, ended(0, 0, message(0)), ["[0] done"])
    out = io.StringIO()
    one = LogReading(client(store, tmp_path), facts(1), console(io.StringIO(), out), (), follow=True)
    assert one.show(signals) == 0
    assert out.getvalue().count("done") == 1


def test_a_watch_that_gives_up_ends_it(store: Store, tmp_path: Path, signals: Signals) -> None:
    """A right that is taken away, say: nobody would tell of the workers' end any more."""
    put(store, pod(0, phase="Running", worker=running()), ["[0] step 1"])
    store.faults = [("GET", "watch=true", forbidden("pods"))]
    out = io.StringIO()
    one = LogReading(client(store, tmp_path), facts(1), console(io.StringIO(), out), (), follow=True)
    began = time.monotonic()
    with pytest.raises(ClusterError, match="watch pods"):
        one.show(signals)
    assert time.monotonic() - began < 7


def test_no_more_is_taken_than_somebody_reads_and_a_signal_ends_it(
    store: Store, tmp_path: Path, signals: Signals
) -> None:
    put(store, ended(0, 0, message(0)), [f"[0] {number:0200d}" for number in range(20_000)])
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        shown = console(file, file)
        one = LogReading(client(store, tmp_path), facts(1), shown, (), follow=False)
        most: list[int] = []

        def watch() -> None:
            for _ in range(200):
                most.append(shown.pending)
                pause(0.01)

        began = time.monotonic()
        with aside(watch, interrupt):
            assert one.show(signals) == 130
        assert time.monotonic() - began < 8
        assert BACKLOG // 2 < max(most) < BACKLOG * 1.1
        os.close(reading)


def test_who_reads_slowly_gets_everything(store: Store, tmp_path: Path, signals: Signals) -> None:
    """More than may wait at once: what is read makes room for what comes."""
    put(store, ended(0, 0, message(0)), [f"[0] {number:0400d}" for number in range(6000)])
    with slow_reader(1) as (file, got):
        one = LogReading(client(store, tmp_path), facts(1), console(file, file), (), follow=False)
        assert one.show(signals) == 0
    assert got.count(b"\n") == 6000


@pytest.mark.parametrize("command", ["logs", "attach"])
def test_ranks_that_the_run_does_not_have_are_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Nothing would ever be shown of them."""
    store.put(job(4))
    for rank in range(4):
        put(store, ended(rank, 0, message(rank)), [f"[{rank}] hello"])
    to_store = ("--kubeconfig", str(kubeconfig(tmp_path / "config", store.address)), "-n", NAMESPACE)
    assert main([command, RUN, "--ranks", "1,4-9", *to_store]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"the ranks of {RUN} are 0 to 3" in err
    assert f"torchnet status {RUN} -n {NAMESPACE}" in err
    assert not store.wanted("GET", "/log")
    assert main([command, RUN, "--ranks", "1,3", *to_store]) == 0
    assert capsys.readouterr().out.count("hello") == 2
