"""The preflight's plan: everybody, or a connected few."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.network.probe_plan import ALL_PAIRS, Mode, paths, peers

SMALL = st.integers(1, ALL_PAIRS)
LARGE = st.integers(ALL_PAIRS + 1, 700)


def reached(start: int, graph: list[tuple[int, ...]]) -> set[int]:
    seen, ahead = {start}, [start]
    while ahead:
        for peer in graph[ahead.pop()]:
            if peer not in seen:
                seen.add(peer)
                ahead.append(peer)
    return seen


@given(SMALL.map(lambda n: (n, "auto")) | st.integers(1, 150).map(lambda n: (n, "full")))
def test_every_ordered_pair(case: tuple[int, Mode]) -> None:
    nnodes, mode = case
    pairs = [(rank, peer) for rank in range(nnodes) for peer in peers(rank, nnodes, mode)]
    assert len(pairs) == len(set(pairs)) == nnodes * (nnodes - 1) == paths(nnodes, mode)
    assert all(rank != peer and 0 <= peer < nnodes for rank, peer in pairs)


@given(st.integers(2, 200))
def test_each_step_is_a_permutation(nnodes: int) -> None:
    plans = [peers(rank, nnodes, "full") for rank in range(nnodes)]
    assert all(sorted(step) == list(range(nnodes)) for step in zip(*plans, strict=True))


@given(LARGE)
def test_shifted_is_small_connected_and_reaches_rank_0(nnodes: int) -> None:
    graph = [peers(rank, nnodes) for rank in range(nnodes)]
    most = math.ceil(math.log2(nnodes)) + 1
    for rank, own in enumerate(graph):
        assert len(own) == len(set(own)) <= most
        assert rank not in own
        assert rank == 0 or 0 in own
        assert all(0 <= peer < nnodes for peer in own)
    backwards: list[list[int]] = [[] for _ in graph]
    for rank, own in enumerate(graph):
        for peer in own:
            backwards[peer].append(rank)
    assert len(reached(0, graph)) == len(reached(0, [tuple(b) for b in backwards])) == nnodes
    assert paths(nnodes) == sum(map(len, graph))
    # Everybody is probed by at least that many others, too: one bad card is seen by more than one.
    assert min(map(len, backwards)) >= math.ceil(math.log2(nnodes))


def test_64_are_all_pairs_and_65_are_not() -> None:
    assert paths(64) == 4032
    assert len(peers(3, 65)) <= 8
    assert len(peers(3, 65, "full")) == 64


def test_10000() -> None:
    assert paths(10_000) < 10_000 * 15
    assert peers(9_999, 10_000)[:2] == (0, 1)


@pytest.mark.parametrize(
    ("rank", "nnodes", "mode"), [(2, 2, "auto"), (-1, 2, "auto"), (0, 0, "auto"), (0, 2, "x")]
)
def test_wrong_arguments(rank: int, nnodes: int, mode: Mode) -> None:
    with pytest.raises(ValueError, match="not"):
        peers(rank, nnodes, mode)
