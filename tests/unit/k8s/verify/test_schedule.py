"""Which nodes test the paths to which others."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.k8s.verify.schedule import partners, rounds

COUNTS = st.integers(2, 300)


@given(COUNTS)
def test_a_node_has_one_partner_at_a_time_and_never_the_same_twice(count: int) -> None:
    found = rounds(count)
    for pairs in found:
        nodes = [node for pair in pairs for node in pair]
        assert len(nodes) == len(set(nodes))
    pairs = [pair for one in found for pair in one]
    assert len(pairs) == len(set(pairs))
    assert all(0 <= one < other < count for one, other in pairs)


@given(COUNTS)
def test_each_node_takes_part_in_as_many_pairs_as_it_takes_to_halve_them(count: int) -> None:
    """With an odd number, some in one more: so many ends of pairs cannot be divided among them evenly."""
    wanted = math.ceil(math.log2(count))
    assert partners(count) == wanted
    taken = Counter(node for pairs in rounds(count) for pair in pairs for node in pair)
    assert set(taken) == set(range(count))
    assert set(taken.values()) <= ({wanted} if count % 2 == 0 else {wanted, wanted + 1})
    assert len(rounds(count)) == wanted + count % 2


@given(COUNTS)
def test_the_pairs_connect_all_nodes(count: int) -> None:
    connected, pairs = {0}, [pair for one in rounds(count) for pair in one]
    while more := [set(pair) for pair in pairs if len(connected & {*pair}) == 1]:
        connected |= set.union(*more)
    assert connected == set(range(count))


@pytest.mark.parametrize("count", [0, 1])
def test_one_node_has_no_partner(count: int) -> None:
    assert rounds(count) == []
    assert partners(count) == 0


def test_a_thousand_nodes_are_ten_rounds() -> None:
    assert len(rounds(1000)) == 10
    assert sum(map(len, rounds(1000))) == 5000
