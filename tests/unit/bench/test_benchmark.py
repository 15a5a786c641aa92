"""``torchnet bench`` from the wish to the exit code: what is kept of a run, whatever happens in it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.bench.test_aggregation import ALL, RECEIPT
from tests.unit.bench.test_collector import line, output
from tests.unit.signal_handlers import NUMBERS, Finalizer, kept
from torchnet.bench import benchmark
from torchnet.bench.bench_options import read
from torchnet.bench.benchmark import save
from torchnet.bench.collector import Collector
from torchnet.bench.results import Results, load
from torchnet.console.console import Console
from torchnet.errors import ClusterError, NetworkError, TorchnetError


def run(
    monkeypatch: pytest.MonkeyPatch,
    launch: Callable[[Console], int],
    flags: dict[str, Any] | None = None,
    **given: Any,
) -> int:
    """The command, with something else in place of a job; it has the job's console."""

    def launched(_job: Any, _cwd: str, collector: Collector) -> int:
        console = Console(world_size=2, environ={}, listener=collector)
        try:
            return launch(console)
        finally:
            console.close()

    monkeypatch.setattr(
        benchmark, "runtime_of", lambda _job: SimpleNamespace(validate=lambda *_: None, launch=launched)
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    asked, problems = read((), {"max_bytes": "1K", **given})
    assert not problems
    wish = benchmark.plan(asked, problems, flags or {}, "/", None)
    return benchmark.run(wish, "/", ("-e", "1K"), "0.1.0")


def healthy(console: Console) -> int:
    for message in ALL:
        console.event(output(line(message)))
    console.event({"event": "receipt", "receipt": RECEIPT})
    return 0


def partly(console: Console) -> int:
    """A defect, or a full disk, in the midst."""
    for message in ALL[:4]:
        console.event(output(line(message)))
    raise OSError(28, "No space left on device")


def test_a_whole_run_is_shown_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    assert run(monkeypatch, healthy, json=str(path)) == 0
    assert load(path.read_text()).complete
    assert "all_reduce" in capsys.readouterr().out


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_while_the_results_are_shown_does_not_cost_them(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report takes seconds to be drawn."""

    def slowly(*words: Any) -> list[str]:
        os.kill(os.getpid(), number)
        return save(*words)

    monkeypatch.setattr(benchmark, "save", slowly)
    assert run(monkeypatch, healthy, json=str(tmp_path / "r.json")) == 0
    assert load((tmp_path / "r.json").read_text()).complete
    assert "all_reduce" in capsys.readouterr().out


def test_an_error_of_torchnets_own_leaves_what_was_measured_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    assert run(monkeypatch, partly, json=str(path)) == 70
    out, err = capsys.readouterr()
    found: Results = load(path.read_text())
    assert (found.complete, found.exit_code, len(found.collectives)) == (False, 70, 1)
    said = "internal error: OSError: [Errno 28] No space left on device"
    assert found.reason == said
    assert err.splitlines()[-1] == f"torchnet: error: {said}"
    assert f"INCOMPLETE: {said}; " in out
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "ended", "found"),
    [
        (NetworkError("net1 is gone"), "network", ["network"]),
        (ClusterError("the API server is silent"), "cluster", []),
        (TorchnetError("a file is damaged"), "internal", ["lost"]),
    ],
)
def test_what_ended_it_is_known_by_the_error(
    error: TorchnetError, ended: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(console: Console) -> int:
        healthy(console)
        raise error

    path = tmp_path / "r.json"
    assert run(monkeypatch, broken, json=str(path)) == error.exit_code
    results = load(path.read_text())
    assert (results.ended, [one.kind for one in results.findings]) == (ended, found)


def test_its_traceback_can_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHNET_TRACEBACK", "1")
    assert run(monkeypatch, partly) == 70
    assert "Traceback" in capsys.readouterr().err


def swallowed(job: Callable[[Console], int]) -> Callable[[Console], int]:
    """The job, with a signal at its start of which nobody heard then."""

    def launch(console: Console) -> int:
        Finalizer()
        return job(console)

    return launch


as_before = pytest.fixture(autouse=True)(kept)


def test_a_signal_of_which_nobody_heard_ends_a_benchmark_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    assert run(monkeypatch, swallowed(healthy)) == 130


def test_an_error_before_the_first_figure_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Console) -> int:
        raise OSError("no namespaces")

    with pytest.raises(OSError, match="no namespaces"):
        run(monkeypatch, broken)


def test_standard_output_has_nothing_but_the_results_where_they_go_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def talks(console: Console) -> int:
        console.event(output("NCCL INFO Bootstrap"))
        console.event(output("hello", rank=1))
        return healthy(console)

    assert run(monkeypatch, talks, json="-") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["complete"] is True
    assert all(text in err for text in ("NCCL INFO Bootstrap", "hello", "all_reduce"))
    assert run(monkeypatch, talks) == 0
    assert "[rank 1] hello" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"json": "no/r.json"}, ["--json no/r.json", "the results will go to standard output"]),
        ({"html": "no/r.html"}, ["--html no/r.html", "the results will go to standard output"]),
        ({"html": "no/r.html", "json": "r.json"}, ["--html no/r.html", "there will be no report"]),
        ({"html": "no/r.html", "json": "-"}, ["--html no/r.html", "there will be no report"]),
    ],
    ids=str,
)
def test_what_becomes_of_files_that_cannot_be_written_is_said_as_it_will_be(
    given: dict[str, Any],
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, healthy, **given) == 0
    out, err = capsys.readouterr()
    (warning,) = [line for line in err.splitlines() if line.startswith("torchnet: warning: ")]
    assert warning.startswith(f"torchnet: warning: {told[0]}: the directory ")
    assert warning.endswith(f"; {told[1]}")
    shown = '"schema": "torchnet.bench/1"' in out
    assert shown == ("standard output" in warning or given.get("json") == "-")
