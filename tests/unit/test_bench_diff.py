"""Two runs side by side: a tenth slower is told from noise, and what else is different comes first."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bench_results import changed, healthy
from torchnet.bench.diff import Diff, compare, read, text
from torchnet.bench.diff.verdicts import row, series, shifted
from torchnet.bench.results import Figure, Finding, Lacking, Latency, Results, Tcp, dump

SIZES = tuple(1 << power for power in range(10, 29))  # torchnet bench's own
RUNS = 150
NOISY: dict[str, Any] = {"noise": 0.05, "wander": 0.025, "sizes": SIZES}


def told(differs: Callable[[Diff], bool], ratio: float, runs: int = RUNS, **fields: Any) -> float:
    """In which share of pairs of runs; the new one carries ``ratio`` of the old one's rate."""
    count = 0
    for number in range(runs):
        old = healthy(seed=2 * number, **NOISY, **fields)
        new = healthy(seed=2 * number + 1, path=lambda _a, _b: ratio, **NOISY, **fields)
        count += differs(compare(old, new))
    return count / runs


def faster(diff: Diff) -> bool:
    return any(one.verdict == "faster" for one in diff.series)


def worse(diff: Diff) -> bool:
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


def test_one_size_that_is_much_slower_is_told_though_the_others_are_not() -> None:
    old, new = healthy(sizes=SIZES), healthy(sizes=SIZES, seed=1)
    rows = [
        one.model_copy(
            update={name: getattr(one, name) * 0.6 for name in ("busbw", "busbw_low", "busbw_high")}
        )
        if one.size == 1 << 26
        else one
        for one in new.collectives
    ]
    diff = compare(old, changed(new, collectives=tuple(rows)))
    assert diff.worse
    assert [one.what for one in diff.alone] == ["all_reduce sum float32 over net1, 64M"]
    assert "64M" in text(diff)


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
    assert "nothing in common" in text(diff)
    assert "Nothing changed" in text(compare(healthy(), healthy()))


def test_wrong_results_are_worse_and_told_first_however_fast_they_came() -> None:
    fast = healthy(rate=2e9, seed=1)
    rows = (fast.collectives[0].model_copy(update={"wrong": 3}), *fast.collectives[1:])
    diff = compare(healthy(), changed(fast, collectives=rows))
    assert diff.worse
    assert diff.wrong == ("all_reduce sum float32 over net1, 1K: 3 elements",)
    shown = text(diff)
    assert shown.startswith(
        "Results of the new run are wrong:\n  all_reduce sum float32 over net1, 1K: 3 elements\n"
    )
    assert shown.endswith("\nWrong: 1 row has wrong results in the new run.\n")
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
    assert "Ended early: the new run" in text(diff)
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
    small = old.collectives[0]
    values = {name: getattr(small, name) * 0.4 for name in ("busbw", "busbw_low", "busbw_high")}
    rows = (small.model_copy(update=values), *old.collectives[1:])
    assert not compare(old, changed(old, collectives=rows)).worse


def test_what_is_found_in_the_new_run_alone_is_worse_whatever_its_pods_are_called() -> None:
    slow = Finding(kind="slow-node", text="node-1 is slow.", fix="x", where=("node-1",))
    old, new = healthy(3), healthy(3, seed=1)
    diff = compare(old, changed(new, findings=(slow,)))
    assert diff.worse
    assert "Found in the new run:\n  node-1 is slow.\n" in text(diff)
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
    assert text(diff).endswith("Nothing changed by more than noise. Not compared: 2 rows of the old run.\n")
    lacks = (Lacking(what="all_gather (nccl)", why="no such function"),)
    diff = compare(old, changed(asked_less, lacks=lacks))
    assert diff.worse
    assert "What the new run could not measure:\n  all_gather (nccl): no such function\n" in text(diff)
    assert text(diff).endswith("Missing: the new run has not 2 rows of the old one, and says why.\n")
    assert not compare(changed(old, lacks=lacks), changed(asked_less, lacks=lacks)).worse
    assert not compare(old, changed(old, lacks=lacks)).worse, "it has all rows that the old one has"


def test_another_root_is_another_row() -> None:
    old = healthy(collectives=("broadcast",), sizes=(1 << 20,))
    new = changed(old, collectives=tuple(row.model_copy(update={"root": 3}) for row in old.collectives))
    diff = compare(old, new)
    assert diff.only_old == ("broadcast float32 over net1, 1M",)
    assert diff.only_new == ("broadcast float32 root 3 over net1, 1M",)
    both = changed(old, collectives=(*old.collectives, *new.collectives))
    assert len([row for row in compare(both, both).rows if row.kind != "tcp" and row.kind != "latency"]) == 2


EVIL = "\x1b]0;x\x07\nNothing changed by more than noise.\u202e"


def hostile(results: Results) -> Results:
    """All that a file has to say, so that it would act on a terminal."""
    assert results.setup
    setup = results.setup.model_copy(
        update={
            "versions": {EVIL: EVIL, "torch": EVIL},
            "environment": {EVIL: EVIL, "NCCL_X": EVIL},
            **dict.fromkeys(("backend", "device", "interface", "compare", "image"), EVIL),
        }
    )
    nodes = [one.model_copy(update={"name": EVIL, "cpu": EVIL, "kernel": EVIL}) for one in results.nodes]
    own = {"network": EVIL, "collective": EVIL, "dtype": EVIL, "redop": EVIL}
    return changed(
        results,
        torchnet=EVIL,
        run=EVIL,
        reason=EVIL,
        complete=False,
        setup=setup,
        nodes=tuple(nodes),
        lines=tuple(one.model_copy(update={"network": EVIL}) for one in results.lines),
        collectives=tuple(one.model_copy(update={**own, "wrong": 1}) for one in results.collectives),
        tcp=tuple(one.model_copy(update={"network": EVIL}) for one in results.tcp),
        latency=tuple(one.model_copy(update={"network": EVIL}) for one in results.latency),
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_that_a_file_says_acts_on_the_terminal(seed: int) -> None:
    old, slow = hostile(healthy()), hostile(healthy(seed=seed, rate=2e8, round_trip=0.01))
    rows = [row.model_copy(update={"busbw_low": row.busbw * 0.3}) for row in slow.collectives]
    one = [
        row.model_copy(
            update={name: getattr(row, name) * 0.5 for name in ("busbw", "busbw_low", "busbw_high")}
        )
        if row.size == SIZES[-1]
        else row
        for row in hostile(healthy(seed=seed)).collectives
    ]
    for new in (
        slow,
        changed(slow, collectives=tuple(rows)),
        changed(slow, collectives=tuple(one)),
        changed(old, complete=True, collectives=()),
        healthy(),
    ):
        for diff in (compare(old, new), compare(new, old)):
            shown = text(diff)
            assert all(line.isprintable() for line in shown.split("\n"))
            assert not any(line.strip().startswith("Nothing changed by") for line in shown.split("\n")[:-2])
            assert EVIL not in shown


def test_what_cannot_be_read_does_not_act_on_the_terminal_either() -> None:
    for content in (
        broken(tuning={"trials": [], "chosen": {EVIL: 1}, "block": ""}),
        broken(schema=EVIL),
        "{",
    ):
        with pytest.raises(ValueError, match="old") as error:
            read(content, f"old{EVIL}")
        assert str(error.value).isprintable()


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


# -- what cannot be read


def broken(**fields: Any) -> str:
    return json.dumps({**json.loads(dump(healthy())), **fields})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "no results of a benchmark"),
        ("{}", "no results of a benchmark"),
        (broken(schema="torchnet.bench/2"), "use the torchnet that wrote it"),
        (broken(schema="torchnet.receipt/1"), "torchnet.receipt/1"),
        (broken(complete="perhaps"), "complete: "),
        (broken(collectives=[{}]), "collectives.0"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_words(content: str, words: str) -> None:
    with pytest.raises(ValueError, match="old.json") as error:
        read(content, "old.json")
    assert words in str(error.value)


def test_what_was_written_is_read() -> None:
    results = healthy(3)
    assert read(dump(results), "x.json") == results
    assert read(broken(more=1), "x.json").reason == ""


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
    middle, low, high = shifted(values)
    assert min(values) <= low <= middle <= high <= max(values)
    assert shifted([value + by for value in values]) == pytest.approx(
        (middle + by, low + by, high + by), abs=1e-9
    )


def test_one_wild_row_moves_no_series() -> None:
    still = [row(figure(100, 1), figure(100, 1))] * 11
    assert series([*still, row(figure(100, 1), figure(10, 1))]).verdict == "same"
    assert series([row(figure(100, 1), figure(90, 1))] * 2 + still[:1]).verdict == "slower"
    assert series([row(figure(100, 1), figure(90, 1))] + still[:2]).verdict == "same"
