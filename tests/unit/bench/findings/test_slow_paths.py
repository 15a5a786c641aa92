"""Slow nodes, pairs and directions, and lost packets, on slow lines and on fast ones: each gives its finding alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bench_faults import NOISES, PAIRS, SEEDS, made, only
from tests.unit.bench_results import changed
from torchnet.bench.findings import find

# -- paths


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 8), st.data(), SEEDS, NOISES, PAIRS, st.sampled_from([0.1, 0.7]))
def test_a_slow_node_is_named(
    nodes: int, data: st.DataObject, seed: int, noise: float, pairs: str, share: float
) -> None:
    odd = data.draw(st.integers(0, nodes - 1))
    results = made(
        nodes, seed=seed, noise=noise, pairs=pairs, path=lambda a, b: share if odd in (a, b) else 1.0
    )
    found = only(results)
    assert (found.kind, found.where) == ("slow-node", (f"node-{odd}",))


def test_two_slow_nodes_are_both_named() -> None:
    found = find(made(5, path=lambda a, b: 0.3 if {1, 3} & {a, b} else 1.0))
    assert [(one.kind, one.where) for one in found] == [
        ("slow-node", ("node-1",)),
        ("slow-node", ("node-3",)),
    ]


def test_a_slow_node_that_a_quota_holds_up_says_so() -> None:
    results = made(3, path=lambda a, b: 0.1 if 1 in (a, b) else 1.0)
    rows = [
        row.model_copy(update={"throttled": 0.4}) if 1 in (row.source, row.target) else row
        for row in results.tcp
    ]
    assert "quota" in only(changed(results, tcp=tuple(rows))).text


@settings(max_examples=20, deadline=None)
@given(SEEDS, NOISES, st.sampled_from([0.1, 0.7]))
def test_of_two_nodes_the_pair_is_slow(seed: int, noise: float, share: float) -> None:
    found = only(made(seed=seed, noise=noise, path=lambda _a, _b: share))
    assert (found.kind, found.where) == ("slow-pair", ("node-0", "node-1"))


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 8), SEEDS, NOISES, st.sampled_from([0.1, 0.7]))
def test_a_slow_pair_of_nodes_that_are_fine_with_others_is_named(
    nodes: int, seed: int, noise: float, share: float
) -> None:
    found = only(made(nodes, seed=seed, noise=noise, path=lambda a, b: share if {a, b} == {1, 2} else 1.0))
    assert (found.kind, found.where) == ("slow-pair", ("node-1", "node-2"))


def test_where_all_pairs_are_slow_no_node_is_blamed() -> None:
    found = only(made(4, path=lambda _a, _b: 0.4))
    assert (found.kind, found.where) == ("slow-pair", ())
    assert "All pairs" in found.text


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), SEEDS, NOISES, st.sampled_from([0.1, 0.6]))
def test_one_slow_direction_is_named_with_its_sender(
    nodes: int, seed: int, noise: float, share: float
) -> None:
    found = only(made(nodes, seed=seed, noise=noise, path=lambda a, b: share if (a, b) == (1, 0) else 1.0))
    assert (found.kind, found.where) == ("asymmetry", ("node-1", "node-0"))
    assert "node-1 → node-0" in found.text


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 8), st.data(), SEEDS, NOISES, PAIRS, st.booleans())
def test_a_node_that_sends_or_receives_slowly_is_named_once(
    nodes: int, data: st.DataObject, seed: int, noise: float, pairs: str, sends: bool
) -> None:
    odd = data.draw(st.integers(0, nodes - 1))
    found = only(
        made(
            nodes,
            seed=seed,
            noise=noise,
            pairs=pairs,
            path=lambda a, b: 0.1 if odd == (a if sends else b) else 1.0,
        )
    )
    assert (found.kind, found.where) == ("asymmetry", (f"node-{odd}",))
    assert f"node-{odd} {'sends' if sends else 'receives'}" in found.text


def test_a_path_of_a_tenth_repeats_segments_and_is_still_only_slow() -> None:
    repeats = lambda a, b: 0.05 if 1 in (a, b) else 0.0  # noqa: E731
    assert only(made(3, path=lambda a, b: 0.1 if 1 in (a, b) else 1.0, repeats=repeats)).kind == "slow-node"


# -- loss


def test_loss_that_does_not_slow_a_fast_line_down_is_told() -> None:
    found = only(made(2, repeats=lambda a, b: 0.02 if (a, b) == (0, 1) else 0.0001))
    assert found.kind == "loss"
    assert "node-0 → node-1" in found.text


def test_loss_that_makes_small_messages_wait_is_told_where_the_processor_limits() -> None:
    results = made(3, rate=None, repeats=lambda a, b: 0.02 if 1 in (a, b) else 0.0)
    rows = [
        row.model_copy(update={"p99": 0.21}) if 1 in (row.source, row.target) else row
        for row in results.latency
    ]
    found = only(changed(results, latency=tuple(rows)))
    assert (found.kind, found.where) == ("loss", ("node-1",))


def test_loss_that_costs_rate_is_told_and_not_the_rate() -> None:
    results = made(2, noise=0.2, path=lambda _a, _b: 0.4, repeats=lambda _a, _b: 0.004)
    assert only(results).kind == "loss"


# -- fast lines


FAST: dict[str, Any] = {
    "rate": 100e9, "known": "interface", "one_stream": 0.4, "core": 0.7, "busy": 0.05, "achieved": 0.15,
}  # fmt: skip


@pytest.mark.parametrize("core", [0.7, 0.97])
def test_a_slow_node_among_fast_ones_is_named(core: float) -> None:
    """A card that came up with 10 of its 100 Gbit/s."""
    found = find(made(6, **{**FAST, "core": core}, path=lambda a, b: 0.25 if 1 in (a, b) else 1.0))
    assert [(one.kind, one.where) for one in found] == [("slow-node", ("node-1",))]


def test_a_slow_direction_of_a_fast_pair_is_named() -> None:
    found = only(made(2, **FAST, path=lambda a, b: 0.1 if (a, b) == (1, 0) else 1.0))
    assert (found.kind, found.where) == ("asymmetry", ("node-1", "node-0"))


def test_a_fast_line_that_somebody_told_is_held_against_one_stream_as_far_as_it_is_sure() -> None:
    slow: dict[str, Any] = {**FAST, "known": "told", "one_stream": 0.05, "core": 0.2}
    found = only(made(2, **slow))
    assert found.kind == "slow-pair"
    assert "the line can carry 98." in found.text
    assert not find(made(2, **{**slow, "one_stream": 0.09}))
    found = only(made(4, **slow))
    assert "All pairs" in found.text


def test_loss_on_a_fast_line_is_told() -> None:
    found = only(made(2, **FAST, repeats=lambda a, b: 0.03 if (a, b) == (0, 1) else 0.0))
    assert found.kind == "loss"


def test_gloo_that_uses_a_core_up_on_a_fast_line_is_told_with_it() -> None:
    """All cores together say nothing: three of a hundred are one of 32."""
    found = only(made(2, **FAST, thread=0.98))
    assert found.kind == "cpu-bound"
    assert "a thread used 98 % of one core" in found.text


def test_a_slow_collective_on_a_fast_line_is_told_where_the_processor_has_time() -> None:
    assert only(made(2, **FAST, thread=0.2)).kind == "slow-collective"
    environment = {"NCCL_SOCKET_IFNAME": "net1"}
    nccl = only(made(2, **FAST, backend="nccl", thread=1.0, environment=environment))
    assert nccl.kind == "slow-collective"
    assert nccl.fix.endswith(" --tune nccl_socket_nthreads=4")
