"""``torchnet bench`` from the wish to the exit code: what is kept of a run, whatever happens in it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
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
from torchnet.bench.worker.messages import Tried
from torchnet.console.console import Console
from torchnet.errors import ClusterError, NetworkError, TorchnetError


def run(
    monkeypatch: pytest.MonkeyPatch,
    launch: Callable[[Console], int],
    flags: dict[str, Any] | None = None,
    **given: Any,
) -> int:
    """The command, with something else in place of a job; it has the job's console."""

    def launched(_wish: Any, _cwd: str, collector: Collector) -> int:
        console = Console(world_size=2, environ={}, listener=collector)
        try:
            return launch(console)
        finally:
            console.close()

    monkeypatch.setattr(benchmark, "_launch", launched)
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
    said = "torchnet's own error: OSError: [Errno 28] No space left on device"
    assert found.reason == said
    assert err.splitlines()[-1] == f"torchnet: error: {said}"
    assert f"INCOMPLETE: {said}; the figures above are those until then" in out
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


# -- a tuning: what is started for itself goes on with the first job's figures


def tuned(first: Callable[[Console], int], later: Callable[[Console], int]) -> Callable[[Console], int]:
    jobs = iter([first])

    def launch(console: Console) -> int:
        return next(jobs, later)(console)

    return launch


def figures(console: Console) -> int:
    for message in (*ALL[:-1], BASE, TRIED, ALL[-1]):
        console.event(output(line(message)))
    console.event({"event": "receipt", "receipt": RECEIPT})
    return 0


def started(console: Console) -> int:
    console.notice("one of many", "warning")
    console.event(output(line(BASE)))
    return 0


def signalled(console: Console) -> int:
    console.event({"event": "signal", "number": 15})
    return figures(console)


def interrupted(_: Console) -> int:
    raise KeyboardInterrupt(1)


def swallowed(job: Callable[[Console], int]) -> Callable[[Console], int]:
    """The job, with a signal at its start of which nobody heard then."""

    def launch(console: Console) -> int:
        Finalizer()
        return job(console)

    return launch


def defect(_: Console) -> int:
    raise OSError(28, "No space left on device")


as_before = pytest.fixture(autouse=True)(kept)
BASE = Tried("as torch has it", {}, [1.0], numerics=False, baseline=True)
TRIED = Tried("bucket_cap_mb 1", {"bucket_cap_mb": "1"}, [2.0], numerics=False)


@pytest.mark.parametrize(
    ("first", "later", "code", "reason"),
    [
        (figures, started, 0, ""),
        (signalled, started, 143, "stopped by SIGTERM"),  # at the end of the ranks' own tuning
        (swallowed(figures), started, 130, "stopped by SIGINT"),
        (figures, interrupted, 129, "stopped by SIGHUP"),
        (figures, swallowed(started), 130, "stopped by SIGINT"),
        (figures, defect, 0, ""),
    ],
)
def test_the_figures_of_the_ranks_tuning_are_kept_however_the_rest_ends(
    first: Callable[[Console], int],
    later: Callable[[Console], int],
    code: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "r.json"
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    assert run(monkeypatch, tuned(first, later), json=str(path), tune=True) == code
    found = load(path.read_text())
    assert (found.complete, found.reason) == (not code, reason)
    assert found.tuning is not None
    assert [one.name for one in found.tuning.trials][:2] == [BASE.name, TRIED.name]
    assert ("network.mtu 1500" in [one.name for one in found.tuning.trials]) == (
        later is started and not code
    )
    own = [one.why for one in found.lacks if one.what == "the rest of the tuning"]
    assert own == (
        ["torchnet's own error: OSError: [Errno 28] No space left on device"] if later is defect else []
    )


def test_a_signal_of_which_nobody_heard_ends_a_benchmark_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    assert run(monkeypatch, swallowed(healthy)) == 130


def test_what_is_started_for_itself_shows_nothing_but_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tuned(figures, started), tune=True) == 0
    err = capsys.readouterr().err
    assert "one of many" not in err
    assert "network.mtu 1500: a start of its own, round 6 of 6" in err


def test_the_time_of_the_whole_benchmark_is_that_of_all_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    flags = {"run.timeout": "1.05"}  # a second is the least that a job needs

    def slow(console: Console) -> int:
        time.sleep(0.1)
        return started(console)

    assert run(monkeypatch, tuned(figures, slow), flags, json=str(path), tune=True) == 124
    found = load(path.read_text())
    assert (found.complete, found.reason) == (False, "the benchmark ran longer than --timeout")


def test_a_tuning_has_none_of_the_variables_that_tune(monkeypatch: pytest.MonkeyPatch) -> None:
    def looks(console: Console) -> int:
        assert not [name for name in os.environ if name.startswith("TORCHNET_TUNE_")]
        return healthy(console)

    monkeypatch.setenv("TORCHNET_TUNE_COMPRESS", "fp16")
    assert run(monkeypatch, looks, tune=True) == 0
    asked, problems = read((), {"max_bytes": "1K", "tune": True})
    flags = {"env": ("TORCHNET_TUNE_GLOO_DEVICES=4", "A=b")}
    assert benchmark.plan(asked, problems, flags, "/", None).resolved.job.env == {"A": "b"}


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
