"""Which pairs of nodes are measured, and when."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.bench.worker.pairs import ALONE, _Part, measure, rounds
from torchnet.bench.worker.rank_context import RankContext
from torchnet.bench.worker.tcp import share
from torchnet.bench.worker.worker_config import WorkerConfig

NODES = st.integers(2, 40)


@given(NODES)
def test_all_are_each_two_nodes_exactly_once(nodes: int) -> None:
    pairs = [pair for one in rounds(nodes, "all") for pair in one]
    assert sorted(pairs) == list(itertools.combinations(range(nodes), 2))


@given(NODES)
def test_a_ring_is_each_node_with_the_next_exactly_once(nodes: int) -> None:
    pairs = [pair for one in rounds(nodes, "ring") for pair in one]
    wanted = {(node, (node + 1) % nodes) for node in range(nodes)} if nodes > 2 else {(0, 1)}
    assert len(pairs) == len(wanted)
    assert set(pairs) == wanted


@given(NODES, st.sampled_from(["ring", "all"]))
def test_a_node_is_in_one_pair_at_a_time_and_few_nodes_have_the_network_to_themselves(
    nodes: int, pairs: str
) -> None:
    for one in rounds(nodes, pairs):  # type: ignore[arg-type]
        busy = [node for pair in one for node in pair]
        assert len(busy) == len(set(busy))
        assert 1 <= len(one) <= (1 if nodes <= ALONE else nodes // 2)


@given(st.integers(ALONE + 1, 60))
def test_many_nodes_need_no_more_rounds_than_they_must(nodes: int) -> None:
    assert len(rounds(nodes, "all")) == nodes - 1 + nodes % 2
    assert len(rounds(nodes, "ring")) == 2 + nodes % 2


def test_nothing_is_measured_where_nothing_was_asked_for_or_nobody_is_there() -> None:
    assert rounds(9, "none") == []
    assert rounds(1, "all") == []
    assert rounds(1, "ring") == []


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0.001, 1))
def test_a_share_of_the_figures_is_not_above_its_percentile(figures: list[float], part: float) -> None:
    figures.sort()
    found = share(figures, part)
    assert sum(one <= found for one in figures) >= len(figures) * part
    assert sum(one < found for one in figures) < math.ceil(len(figures) * part)


@pytest.mark.parametrize(
    ("count", "part", "wanted"), [(100, 0.5, 50), (100, 0.99, 99), (1, 0.99, 1), (500, 0.99, 495)]
)
def test_percentiles_by_the_nearest_rank(count: int, part: float, wanted: int) -> None:
    assert share([float(one) for one in range(1, count + 1)], part) == wanted


class _Gone(RuntimeError):
    """As torch's are, no OSError."""


class _Store:
    """Fails while a sender asks where it has to send to, and at nothing else."""

    def set(self, _key: str, _text: str) -> None:
        pass

    def wait(self, keys: list[str], _patience: Any) -> None:
        if keys[0].endswith("tcp/1"):
            raise _Gone("the store is gone")

    def get(self, _key: str) -> bytes:
        return json.dumps(asdict(_Part())).encode()


def test_a_store_that_fails_in_a_senders_thread_is_not_passed_over() -> None:
    addresses = {node: {"lo": "127.0.0.1"} for node in range(2)}
    store: Any = _Store()
    place = RankContext(0, 2, 0, 2, 0, store, ["lo"], addresses)
    with pytest.raises(_Gone):
        measure(WorkerConfig((), ()), place, lambda _: None)
