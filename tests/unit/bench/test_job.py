"""The job that measures what was asked for: its plan, and what it has not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.bench_asked import GIB, PODS, a_plan, arguments
from torchnet.bench import job
from torchnet.bench.bench_options import read
from torchnet.bench.job import plan_job
from torchnet.config.validation_errors import SpecError


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda: (64 * GIB, "on this machine"))


def test_all_that_is_wrong_is_told_at_once_with_what_is_wrong_in_the_job() -> None:
    with pytest.raises(SpecError) as caught:
        a_plan("foo", flags={"nnodes": "0", "network.rate": "fast"}, iters="x", dtype="y")
    text = str(caught.value)
    assert "5 errors" in text
    assert all(name in text for name in ("nnodes", "network.rate", "COLLECTIVES", "--iters", "--dtype"))
    assert text.endswith("fix: torchnet bench --help")
    assert caught.value.exit_code == 2


def test_a_root_is_one_of_the_jobs_ranks() -> None:
    with pytest.raises(SpecError, match="--root: is 2, .* ranks 0 to 1"):
        a_plan("broadcast", root="2")
    assert arguments(a_plan("broadcast", root="15", flags={**PODS, "kubernetes.gpus": "8"})).root == 15


def test_only_gloo_has_no_average_of_whole_numbers() -> None:
    average: dict[str, Any] = {"redop": "avg", "dtype": "int8"}
    assert arguments(a_plan("reduce", gpus="0,1", **average)).redop == "avg"
    assert arguments(a_plan("reduce", flags={**PODS, "kubernetes.gpus": "8"}, **average)).redop == "avg"
    assert arguments(a_plan("reduce", "broadcast", redop="avg", backend="gloo")).redop == "avg"


def test_the_plan_holds_what_was_asked_for() -> None:
    wish = a_plan(
        "reduce", min_bytes="8", max_bytes="64", factor="2", iters="5", root="1", no_check=True, pairs=True
    )
    found = arguments(wish)
    assert (found.collectives, found.sizes) == (("reduce",), (8, 16, 32, 64))
    assert (found.iters, found.root, found.check, found.pairs) == (5, 1, False, "all")
    assert wish.resolved.job.run_id == "bench-abc"
    assert wish.resolved.job.script.endswith("torchnet/bench/worker/run.py")


def test_raw_tcp_can_be_left_out_and_one_node_has_none() -> None:
    assert arguments(a_plan()).pairs == "ring"
    assert arguments(a_plan(tcp_seconds="0")).pairs == "none"
    assert arguments(a_plan(flags={"nnodes": "1"})).pairs == "none"


def test_the_files_script_and_its_outputs_ways_are_not_the_benchmarks(tmp_path: Any) -> None:
    (tmp_path / "torchnet.toml").write_text(
        'script = "train.py"\nargs = ["-x"]\nmodule = true\nnnodes = 3\n'
        '[output]\nredirects = "3"\njson = "r.json"\nmin_share = 0.5\n[run]\nmax_restarts = 5\n'
    )
    found, problems = read((), {})
    job = plan_job(found, problems, {}, {"TORCHNET_TEE": "3"}, str(tmp_path), None, "x").resolved.job
    assert (job.nnodes, job.module, job.output.redirects, job.output.tee) == (3, False, "0", "0")
    assert (job.output.json_path, job.output.min_share, job.run.max_restarts) == (None, None, 0)
    assert job.script.endswith("run.py")
