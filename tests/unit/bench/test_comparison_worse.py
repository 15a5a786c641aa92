"""What makes a new run worse beside the rate of a whole series: one row by itself, wrong results, an early end, what it
could not measure, and what it found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.bench_results import SIZES, changed, healthy, slower
from torchnet.bench.comparison import compare
from torchnet.bench.comparison_text import text
from torchnet.bench.results import Finding, Lacking, Results, Tcp


def test_one_size_that_is_much_slower_is_told_though_the_others_are_not() -> None:
    old, new = healthy(sizes=SIZES), healthy(sizes=SIZES, seed=1)
    rows = [slower(one, 0.6) if one.size == 1 << 26 else one for one in new.collectives]
    diff = compare(old, changed(new, collectives=tuple(rows)))
    assert diff.worse
    assert [one.what for one in diff.alone] == ["all_reduce sum float32 over net1, 64M"]
    assert "64M" in text(diff)


def test_wrong_results_are_worse_and_told_first_however_fast_they_came() -> None:
    fast = healthy(rate=2e9, seed=1)
    rows = (fast.collectives[0].model_copy(update={"wrong": 3}), *fast.collectives[1:])
    diff = compare(healthy(), changed(fast, collectives=rows))
    assert diff.worse
    assert diff.wrong == ("all_reduce sum float32 over net1, 1K: 3 elements",)
    first, *_, last = text(diff).splitlines()
    assert "rong" in first
    assert last.startswith("Wrong: 1 row ")
    back = compare(changed(fast, collectives=rows), fast)
    assert not back.worse
    assert "the old run has wrong results" in back.setup


def test_wrong_results_that_the_old_run_does_not_have_count_too() -> None:
    new = healthy(sizes=(1 << 20, 1 << 22))
    rows = tuple(row.model_copy(update={"wrong": row.size >> 22}) for row in new.collectives)
    diff = compare(healthy(sizes=(1 << 20,)), changed(new, collectives=rows))
    assert diff.wrong == ("all_reduce sum float32 over net1, 4M: 1 element",)


def test_a_run_that_ended_early_is_worse_however_fast_and_whatever_the_old_one_did() -> None:
    early = changed(healthy(rate=2e9), complete=False, reason="node-1 was lost")
    diff = compare(healthy(), early)
    assert diff.worse
    assert diff.early
    assert "Faster" not in text(diff)
    assert not compare(early, healthy(rate=2e9)).worse
    assert compare(early, early).worse


def cut(results: Results, *ways: tuple[int, int], to: float = 0.5) -> Results:
    """With these directions of raw TCP that much slower."""

    def less(row: Tcp) -> Tcp:
        values = {name: getattr(row.rate, name) * to for name in ("median", "low", "high")}
        return row.model_copy(update={"rate": row.rate.model_copy(update=values)})

    return changed(
        results, tcp=tuple(less(row) if (row.source, row.target) in ways else row for row in results.tcp)
    )


@pytest.mark.parametrize(("nodes", "ways"), [(2, [(0, 1)]), (8, [(2, 5), (5, 2)])])
def test_one_path_that_became_slow_is_told_among_those_that_did_not(
    nodes: int, ways: list[tuple[int, int]]
) -> None:
    old = healthy(nodes)
    diff = compare(old, cut(healthy(nodes, seed=1), *ways))
    assert diff.worse
    assert {row.what.rpartition(", ")[2] for row in diff.alone} == {f"node-{a} → node-{b}" for a, b in ways}
    assert "\nSlower: raw TCP" in text(diff)
    assert not compare(cut(old, *ways), healthy(nodes, seed=1)).worse
    assert not compare(old, cut(healthy(nodes, seed=1), *ways, to=0.85)).alone


def test_one_path_alone_says_little_where_the_processor_decides() -> None:
    fast: dict[str, Any] = {"rate": 100e9, "known": "interface"}
    assert not compare(healthy(4, **fast), cut(healthy(4, seed=1, **fast), (0, 1))).alone
    old, new = healthy(4), cut(healthy(4, seed=1), (0, 1))
    assert not compare(changed(old, lines=()), changed(new, lines=())).alone


def test_one_small_message_alone_says_nothing() -> None:
    old = healthy()
    rows = (slower(old.collectives[0], 0.4), *old.collectives[1:])
    assert not compare(old, changed(old, collectives=rows)).worse


def test_what_is_found_in_the_new_run_alone_is_worse_whatever_its_pods_are_called() -> None:
    slow = Finding(kind="slow-node", text="node-1 is slow.", fix="x", where=("node-1",))
    old, new = healthy(3), healthy(3, seed=1)
    diff = compare(old, changed(new, findings=(slow,)))
    assert diff.worse
    assert diff.findings == ("node-1 is slow.",)
    renamed = tuple(node.model_copy(update={"name": f"bench-{node.node}"}) for node in old.nodes)
    before = changed(old, nodes=renamed, findings=(slow.model_copy(update={"where": ("bench-1",)}),))
    assert not compare(before, changed(new, findings=(slow,))).worse
    noise = Finding(kind="noise", text="x", fix="x")
    assert not compare(old, changed(new, findings=(noise,))).worse


def test_what_a_run_can_no_longer_measure_is_worse_and_what_it_was_not_asked_for_is_said() -> None:
    old = healthy(collectives=("all_reduce", "all_gather"), sizes=(1 << 20, 1 << 22))
    asked_less = changed(
        old, collectives=tuple(row for row in old.collectives if row.collective == "all_reduce")
    )
    diff = compare(old, asked_less)
    assert not diff.worse
    assert text(diff).endswith("Not compared: 2 rows of the old run.\n")
    lacks = (Lacking(what="all_gather (nccl)", why="no such function"),)
    diff = compare(old, changed(asked_less, lacks=lacks))
    assert diff.worse
    assert diff.missing == ("all_gather (nccl): no such function",)
    assert "\nMissing: 2 rows " in text(diff)
    assert not compare(changed(old, lacks=lacks), changed(asked_less, lacks=lacks)).worse
    assert not compare(old, changed(old, lacks=lacks)).worse, "it has all rows that the old one has"
