"""Two runs side by side: a tenth slower is told from noise, and what else is different comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bench_results import changed, healthy
from torchnet.bench.comparison import Comparison, compare
from torchnet.bench.comparison_text import text
from torchnet.bench.results import Figure, Latency, Results
from torchnet.bench.significance import estimate_shift, row, series

SIZES = tuple(1 << power for power in range(10, 29))  # torchnet bench's own
RUNS = 150
NOISY: dict[str, Any] = {"noise": 0.05, "wander": 0.025, "sizes": SIZES}


def told(differs: Callable[[Comparison], bool], ratio: float, runs: int = RUNS, **fields: Any) -> float:
    """In which share of pairs of runs; the new one carries ``ratio`` of the old one's rate."""
    count = 0
    for number in range(runs):
        old = healthy(seed=2 * number, **NOISY, **fields)
        new = healthy(seed=2 * number + 1, path=lambda _a, _b: ratio, **NOISY, **fields)
        count += differs(compare(old, new))
    return count / runs


def faster(diff: Comparison) -> bool:
    return any(one.verdict == "faster" for one in diff.series)


def worse(diff: Comparison) -> bool:
    return diff.worse


@pytest.mark.parametrize("nodes", [2, 4])
def test_two_runs_of_the_same_are_the_same(nodes: int) -> None:
    assert told(worse, 1.0, nodes=nodes) < 0.01
    assert told(faster, 1.0, nodes=nodes) < 0.01


@pytest.mark.parametrize("nodes", [2, 4])
def test_a_tenth_less_is_slower_and_a_tenth_more_is_faster(nodes: int) -> None:
    assert told(worse, 0.9, nodes=nodes) > 0.99
    assert told(faster, 0.9, nodes=nodes) < 0.01
    assert told(faster, 1 / 0.9, nodes=nodes) > 0.99
    assert told(worse, 1 / 0.9, nodes=nodes) < 0.01


def test_a_rate_of_900_mbit_is_told_from_1_gbit() -> None:
    old, new = healthy(sizes=SIZES), healthy(sizes=SIZES, rate=9e8, seed=1)
    diff = compare(old, new)
    assert diff.worse
    assert [one.verdict for one in diff.series if one.kind in ("large", "tcp")] == ["slower"] * 3
    assert "line of net1: 1 Gbit/s (shaped), MTU 9000, IPv6, now 0.9 Gbit/s" in diff.setup[0]
    assert compare(new, old).worse is False
    assert faster(compare(new, old))


def test_few_sizes_are_enough_where_the_figures_are_steady() -> None:
    old, new = healthy(sizes=(1 << 26,)), healthy(sizes=(1 << 26,), seed=1, path=lambda _a, _b: 0.9)
    assert compare(old, new).worse
    assert not compare(old, healthy(sizes=(1 << 26,), seed=2)).worse


def test_rows_are_matched_by_what_they_are_and_the_others_are_named() -> None:
    old = healthy(sizes=(1 << 20, 1 << 22), collectives=("all_reduce",))
    new = healthy(sizes=(1 << 22, 1 << 24), collectives=("all_reduce", "broadcast"), streams=(1, 4))
    diff = compare(old, new)
    assert diff.only_old == ("all_reduce sum float32 over net1, 1M",)
    assert "all_reduce sum float32 over net1, 16M" in diff.only_new
    assert any("broadcast" in name for name in diff.only_new)
    assert any("4 streams, node-0 → node-1" in name for name in diff.only_new)
    assert [one.what for one in diff.rows if one.kind == "large"] == ["all_reduce sum float32 over net1, 4M"]
    in_place = changed(
        old, collectives=tuple(c.model_copy(update={"in_place": True}) for c in old.collectives)
    )
    assert not [one for one in compare(old, in_place).rows if one.kind in ("large", "small")]


def test_what_else_is_different_is_told_first() -> None:
    old = healthy()
    assert old.setup
    setup = old.setup.model_copy(
        update={
            "ranks": 4,
            "versions": {"python": "3.12.4", "torch": "2.10.0"},
            "environment": {"GLOO_X": "1"},
        }
    )
    new = changed(healthy(mtu=1500), setup=setup, complete=False, reason="node-1 was lost")
    diff = compare(old, new)
    for words in (
        "ranks: 2, now 4",
        "torch: 2.9.0, now 2.10.0",
        "GLOO_X: none, now 1",
        "MTU of net1: 9000, now 1500",
    ):
        assert any(words in one for one in diff.setup), words
    assert "node-1 was lost" in diff.setup[0]
    shown = text(diff)
    assert shown.index("ranks: 2, now 4") < shown.index("all_reduce")
    assert not compare(old, old).setup


def test_a_run_has_its_own_name_in_its_environment() -> None:
    def run(name: str) -> Results:
        results = healthy()
        assert results.setup
        setup = results.setup.model_copy(update={"environment": {"NCCL_HOSTID": f"{name}-0"}})
        return changed(results, run=name, setup=setup)

    assert not compare(run("bench-1"), run("bench-2")).setup


def test_nothing_in_common_is_said() -> None:
    diff = compare(healthy(), changed(healthy(), collectives=(), tcp=(), latency=()))
    assert not diff.worse
    assert diff.series == ()


def test_another_root_is_another_row() -> None:
    old = healthy(collectives=("broadcast",), sizes=(1 << 20,))
    new = changed(old, collectives=tuple(row.model_copy(update={"root": 3}) for row in old.collectives))
    diff = compare(old, new)
    assert diff.only_old == ("broadcast float32 over net1, 1M",)
    assert diff.only_new == ("broadcast float32 root 3 over net1, 1M",)
    both = changed(old, collectives=(*old.collectives, *new.collectives))
    assert len([row for row in compare(both, both).rows if row.kind != "tcp" and row.kind != "latency"]) == 2


def moved(results: Results, p50: float, least: float) -> Results:
    def one(row: Latency) -> Latency:
        return row.model_copy(update={"p50": row.p50 * p50, "p99": row.p99 * p50, "least": row.least * least})

    return changed(results, latency=tuple(one(row) for row in results.latency))


@pytest.mark.parametrize(
    ("p50", "least", "verdict"),
    [(1.2, 1.2, "same"), (3.0, 3.0, "slower"), (1 / 3, 1 / 3, "faster"), (3.0, 1.0, "unclear")],
)
def test_latency_is_slower_where_the_least_time_is_too(p50: float, least: float, verdict: str) -> None:
    diff = compare(healthy(), moved(healthy(), p50, least))
    assert [one.verdict for one in diff.series if one.kind == "latency"] == [verdict]
    assert diff.worse is (verdict == "slower")
    assert next(one.ratio for one in diff.series if one.kind == "latency") == pytest.approx(p50)


# -- verdicts


def figure(median: float, half: float) -> Figure:
    return Figure(median=median, low=median - half, high=median + half, count=9)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (figure(100, 1), figure(90, 1), "slower"),
        (figure(90, 1), figure(100, 1), "faster"),
        (figure(100, 8), figure(90, 8), "unclear"),
        (figure(100, 0.1), figure(96, 0.1), "same"),
        (figure(0, 0), figure(0, 0), "same"),
    ],
)
def test_a_row_changed_where_the_intervals_have_nothing_in_common(
    old: Figure, new: Figure, verdict: str
) -> None:
    assert row(old, new).verdict == verdict


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=30), st.floats(-1, 1))
def test_a_shift_moves_with_the_values_and_lies_within_its_interval(values: list[float], by: float) -> None:
    middle, low, high = estimate_shift(values)
    assert min(values) <= low <= middle <= high <= max(values)
    assert estimate_shift([value + by for value in values]) == pytest.approx(
        (middle + by, low + by, high + by), abs=1e-9
    )


def test_one_wild_row_moves_no_series() -> None:
    still = [row(figure(100, 1), figure(100, 1))] * 11
    assert series([*still, row(figure(100, 1), figure(10, 1))]).verdict == "same"
    assert series([row(figure(100, 1), figure(90, 1))] * 2 + still[:1]).verdict == "slower"
    assert series([row(figure(100, 1), figure(90, 1))] + still[:2]).verdict == "same"
