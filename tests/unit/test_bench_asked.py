"""What people ask of a benchmark: defaults, what gives way to what, and all wrong values at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torchnet.bench import job as jobs
from torchnet.bench.asked import Asked, read
from torchnet.bench.job import Planned, planned
from torchnet.bench.worker import plan
from torchnet.bench.worker.factors import COLLECTIVES
from torchnet.spec.problems import SpecError

GIB = 1 << 30


def asked(*words: str, **given: Any) -> Asked:
    found, problems = read(words, given)
    assert problems == []
    return found


def wrong(*words: str, **given: Any) -> list[str]:
    return [str(problem) for problem in read(words, given)[1]]


def a_plan(*words: str, flags: dict[str, object] | None = None, **given: Any) -> Planned:
    found, problems = read(words, given)
    return planned(found, problems, flags or {}, {"CUDA_VISIBLE_DEVICES": ""}, "/", None, "abc")


def arguments(wish: Planned) -> plan.Plan:
    first, text = wish.resolved.job.args
    assert first == "--plan"
    return plan.decode(text)


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "available", lambda: 64 * GIB)


def test_without_a_word_it_is_an_all_reduce_of_nccl_tests_usual_sizes() -> None:
    found = asked()
    assert found.collectives == ("all_reduce",)
    assert (found.sizes.least, found.sizes.most, found.sizes.factor) == (1024, 256 << 20, 4)
    assert not found.most_typed


def test_collectives_are_a_list_with_commas_or_all() -> None:
    assert asked("all_gather,reduce", "all-gather").collectives == ("all_gather", "reduce")
    assert asked("all").collectives == COLLECTIVES


def test_a_report_and_results_are_two_files_whatever_leads_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("x")
    for other in ("./x", str(tmp_path / "x"), "link"):
        assert "is the same file as --json" in wrong(html=other, json="x")[0]
    assert wrong(html="y", json="x") == []
    assert wrong(html="./-", json="-") == []


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        ({"min_bytes": "8", "max_bytes": "1G"}, 8, GIB),
        ({"min_bytes": "1G"}, GIB, GIB),
        ({"max_bytes": "512"}, 512, 512),
        ({"max_bytes": "1MiB"}, 1024, 1 << 20),
    ],
)
def test_a_default_gives_way_to_what_was_typed(given: dict[str, str], least: int, most: int) -> None:
    sizes = asked(**given).sizes
    assert (sizes.least, sizes.most) == (least, most)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"min_bytes": "8X"}, '--min-bytes: "8X" is no size: a number of bytes'),
        ({"max_bytes": "-1"}, '--max-bytes: "-1" is no size'),
        ({"max_bytes": "0"}, '--max-bytes: "0" is no size'),
        ({"min_bytes": "2M", "max_bytes": "1M"}, "--min-bytes: 2M is more than --max-bytes 1M"),
        ({"factor": "1"}, '--factor: "1" is not greater than 1'),
        ({"factor": "nan"}, '--factor: "nan" is not a number'),
        ({"factor": "1.01"}, "--factor: 1.01 gives more than 200 sizes"),
        ({"iters": "0"}, '--iters: "0" is too small'),
        ({"iters": "3", "seconds": "1"}, "--iters: says how many calls there are, and --seconds how long"),
        ({"seconds": "0"}, '--seconds: "0" is too short'),
        ({"tcp_seconds": "2h"}, '--tcp-seconds: "2h" is too long'),
        ({"dtype": "float31"}, 'did you mean "float32"?'),
        ({"redop": "mean"}, '--redop: "mean" is not one of its values'),
        ({"redop": "avg", "backend": "gloo"}, "--redop: avg is NCCL's alone"),
        ({"streams": "65"}, '--streams: "65" is too large'),
        ({"compare": "a/b"}, '--compare: "a/b" is no interface'),
        ({"line": "10Gbps"}, "is ambiguous"),
        ({"html": "-"}, '--html: "-" is stdout'),
        ({"html": "x", "json": "x"}, "--html: is the same file as --json"),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_with_its_flag(given: dict[str, str], text: str) -> None:
    (line,) = wrong(**given)
    assert text in line


def test_an_unknown_collective_is_told_with_the_nearest_and_with_all() -> None:
    (line,) = wrong("al_reduce")
    assert line.startswith(
        'COLLECTIVES: "al_reduce" is no collective; did you mean "all_reduce"?; valid: all_reduce,'
    )


def test_all_that_is_wrong_is_told_at_once_with_what_is_wrong_in_the_job() -> None:
    with pytest.raises(SpecError) as caught:
        a_plan("foo", flags={"nnodes": "0", "network.rate": "fast"}, iters="x", dtype="y")
    text = str(caught.value)
    assert "5 things are wrong with this benchmark" in text
    assert all(name in text for name in ("nnodes", "network.rate", "COLLECTIVES", "--iters", "--dtype"))
    assert text.endswith("fix: torchnet bench --help")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "flags", "text"),
    [
        ({"root": "2"}, {}, "--root: is 2, and the job's ranks are 0 to 1"),
        ({"backend": "nccl"}, {}, "--backend: nccl needs a GPU"),
        ({"compare": "net1"}, {}, "--compare: net1 is the backend's own interface"),
        ({"compare": "eth7"}, {}, '--compare: there is no "eth7" in a local node'),
        ({"compare": "eth0"}, {"network.networks": ["loopback"]}, "--compare: has nothing to compare with"),
        ({"compare": "eth0"}, {"nnodes": "1"}, "--compare: needs two nodes"),
        ({"pairs": True}, {"nnodes": "1"}, "--pairs: needs two nodes"),
        ({"streams": "4"}, {"nnodes": "1"}, "--streams: needs two nodes"),
        (
            {"pairs": True, "tcp_seconds": "0"},
            {},
            "--pairs: is about raw TCP, which --tcp-seconds 0 leaves out",
        ),
        (
            {"streams": "4", "tcp_seconds": "0"},
            {},
            "--streams: is about raw TCP, which --tcp-seconds 0 leaves out",
        ),
    ],
    ids=str,
)
def test_what_the_job_has_not_is_told(given: dict[str, str], flags: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError, match=None) as caught:
        a_plan(flags=flags, **given)
    assert text in str(caught.value)


def test_the_plan_holds_what_was_asked_for() -> None:
    wish = a_plan(
        "reduce", min_bytes="8", max_bytes="64", factor="2", iters="5", root="1", no_check=True, pairs=True
    )
    found = arguments(wish)
    assert (found.collectives, found.sizes) == (("reduce",), (8, 16, 32, 64))
    assert (found.iters, found.root, found.check, found.pairs) == (5, 1, False, "all")
    assert wish.resolved.job.run_id == "bench-abc"
    assert wish.resolved.job.script.endswith("torchnet/bench/worker/run.py")


def test_what_changes_the_results_is_tuned_where_it_is_asked_for() -> None:
    asked_for = [(found.tune, found.tune_numerics) for found in map(arguments, (
        a_plan(), a_plan(tune=True), a_plan(tune_numerics=True)
    ))]  # fmt: skip
    assert asked_for == [(False, False), (True, False), (True, True)]


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
    job = planned(found, problems, {}, {"TORCHNET_TEE": "3"}, str(tmp_path), None, "x").resolved.job
    assert (job.nnodes, job.module, job.output.redirects, job.output.tee) == (3, False, "0", "0")
    assert (job.output.json_path, job.output.min_share, job.run.max_restarts) == (None, None, 0)
    assert job.script.endswith("run.py")


def test_a_default_size_that_does_not_fit_is_lowered_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "available", lambda: 2 * GIB)
    wish = a_plan()
    # 1 GiB for each of two ranks, less what torch takes, holds 4 copies of 64M; the next size would be 256M.
    assert max(arguments(wish).sizes) == 64 << 20
    (line,) = wish.notices
    assert line.startswith(
        "the largest size is 64M: 256M needs 1.0 GiB in each rank (4 copies), and 2.0 GiB are free"
    )


def test_a_size_that_was_asked_for_and_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "available", lambda: 3 * GIB)
    with pytest.raises(SpecError, match="--max-bytes: 1G needs 4.0 GiB in each rank") as caught:
        a_plan(max_bytes="1G")
    assert "256M would fit" in str(caught.value)


def test_a_smallest_size_alone_leaves_the_largest_to_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "available", lambda: 3 * GIB // 2)
    wish = a_plan(min_bytes="8")
    assert (min(arguments(wish).sizes), max(arguments(wish).sizes)) == (8, 32 << 20)
    assert wish.notices[0].startswith("the largest size is 32M: 128M needs 512 MiB in each rank")
    # Fours from 8 never come to 256M, so that it need not fit.
    assert max(arguments(a_plan(min_bytes="8", max_bytes="100M")).sizes) == 32 << 20
    with pytest.raises(SpecError, match="--min-bytes: 1G needs 4.0 GiB in each rank"):
        a_plan(min_bytes="1G")


def test_on_kubernetes_the_pods_memory_counts() -> None:
    flags: dict[str, object] = {
        "on": "kubernetes", "kubernetes.image": "docker.io/pytorch/pytorch:2.9.0", "network.networks": ["b"]
    }  # fmt: skip
    with pytest.raises(
        SpecError, match="a worker's memory, 2Gi, leaves 1.5 GiB for one; 384M would fit; --memory"
    ):
        a_plan(flags=flags, max_bytes="1G")
    assert (
        arguments(a_plan(flags={**flags, "kubernetes.memory": "1Gi:8Gi"}, max_bytes="1G")).memory
        == 15 * GIB // 2
    )


def test_with_gpus_the_machines_memory_says_nothing() -> None:
    flags: dict[str, object] = {
        "on": "kubernetes", "kubernetes.image": "docker.io/pytorch/pytorch:2.9.0", "network.networks": ["b"],
        "kubernetes.gpus": "8",
    }  # fmt: skip
    found = arguments(a_plan(flags=flags, max_bytes="16G", backend="nccl", root="15"))
    assert found.memory == plan.Plan((), ()).memory
