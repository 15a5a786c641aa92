"""Sizes, factors, the line's overhead and medians: what the benchmark's figures are made of."""

from __future__ import annotations

import random
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.bench.tcp_ceiling import TcpCeiling, line_factor, payload
from torchnet.bench.worker.busbw import COLLECTIVES, factor, least_bytes
from torchnet.bench.worker.sizes import MOST_SIZES, Sizes, parse_size, size_text
from torchnet.bench.worker.stats import median

# -- sizes


@pytest.mark.parametrize(
    ("text", "size"), [("8", 8), ("1K", 1024), ("1kib", 1024), ("32m", 32 << 20), ("1GiB", 1 << 30), (" 4k ", 4096)]
)  # fmt: skip
def test_sizes_are_read_as_nccl_tests_reads_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5M", "1KB", "1T", "8 K", "k", "9" * 40, "1025G", "\u0661K"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@given(st.integers(1, 1 << 40))
def test_a_size_is_written_so_that_it_is_read_again(size: int) -> None:
    assert parse_size(size_text(size)) == size


@given(st.integers(1, 1 << 20), st.integers(0, 1 << 20), st.floats(1.5, 16))
def test_a_series_rises_within_its_bounds(least: int, more: int, factor: float) -> None:
    found = Sizes(least, least + more, factor).series()
    assert found == sorted(set(found))
    assert found[0] == least
    assert found[-1] <= least + more < found[-1] * factor + 1


def test_a_series_doubles() -> None:
    assert Sizes(8, 64, 2).series() == [8, 16, 32, 64]


def test_a_series_that_would_not_end_is_refused() -> None:
    with pytest.raises(ValueError, match=f"more than {MOST_SIZES} sizes"):
        Sizes(1 << 20, 1 << 30, 1.001).series()
    with pytest.raises(ValueError, match="more than 2000 steps"):
        Sizes(8, 1 << 30, 1.0000000000000002).series()


@given(st.integers(1, 2000), st.integers(11, 40), st.integers(1, 12))
def test_a_series_ends_with_the_largest_size_where_the_factor_leads_there(
    least: int, tenths: int, power: int
) -> None:
    """1000 times 1.1 three times is 1331, though no binary fraction is 1.1."""
    exact = [least * Fraction(tenths, 10) ** number for number in range(power + 1)]
    found = Sizes(least, int(exact[-1]), float(f"{tenths / 10:.1f}")).series()
    assert found == sorted({int(size) for size in exact})


# -- factors


def test_bus_bandwidth_is_nccl_tests() -> None:
    """The tables of its PERFORMANCE.md, for 4 ranks."""
    assert [factor(one, 4) for one in COLLECTIVES] == [1.5, 0.75, 0.75, 1, 1, 0.75, 1]


@given(st.sampled_from(COLLECTIVES), st.integers(1, 1000), st.integers(1, 1 << 30))
def test_what_all_send_is_what_the_bus_carries(collective: str, ranks: int, size: int) -> None:
    """busbw is what each rank's line carries, where all ranks have the same to do."""
    if collective in ("broadcast", "reduce"):
        return
    each = least_bytes(collective, size, ranks) / ranks  # type: ignore[arg-type]
    assert each == pytest.approx(factor(collective, ranks) * size)  # type: ignore[arg-type]


# -- the line


@pytest.mark.parametrize(
    ("mtu", "family", "known", "percent"),
    [(1500, 6, "shaped", 94.3), (9000, 6, "shaped", 99.05), (1500, 6, "told", 92.85), (9000, 6, "interface", 98.78),
     (1500, 4, "told", 94.15)],
)  # fmt: skip
def test_how_much_of_a_line_is_payload(mtu: int, family: int, known: str, percent: float) -> None:
    line = TcpCeiling(1e9, mtu, family, known)  # type: ignore[arg-type]
    assert line.efficiency * 100 == pytest.approx(percent, abs=0.05)
    assert line.ceiling == pytest.approx(1e9 / 8 * percent / 100, rel=1e-3)


def test_a_full_packets_payload() -> None:
    assert (payload(9000, 6), payload(1500, 4)) == (8928, 1448)
    assert payload(1500, 4, timestamps=False) == 1460
    assert TcpCeiling(1e9, 9000, 6, "shaped", timestamps=False).ceiling == pytest.approx(
        1e9 / 8 * 8940 / 9014
    )


@given(
    st.sampled_from(("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")),
    st.integers(1, 6),
    st.integers(2, 6),
)
def test_what_a_nodes_line_carries_is_what_its_ranks_send_to_others(name: str, each: int, nodes: int) -> None:
    ranks, size = each * nodes, 3600
    out = 0.0  # of the first node, rank by rank
    for rank in range(each):
        if name == "all_to_all":
            out += sum(size / ranks for to in range(ranks) if to >= each)
        elif (rank + 1) % ranks >= each:  # its neighbour in the ring, which has a rank's whole share from it
            out += least_bytes(name, size, ranks) / ranks  # type: ignore[arg-type]
    assert line_factor(name, ranks, nodes) == pytest.approx(out / (factor(name, ranks) * size))  # type: ignore[arg-type]


def test_a_node_alone_and_nodes_of_one_rank_carry_busbw() -> None:
    assert [line_factor("all_to_all", ranks, nodes) for ranks, nodes in ((4, 4), (4, 1), (1, 1), (0, 0))] == [
        1.0
    ] * 4
    assert line_factor("all_to_all", 16, 2) == pytest.approx(64 / 15)


# -- medians


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=60))
def test_a_median_lies_in_its_interval(figures: list[float]) -> None:
    found = median(figures)
    assert found.low <= found.value <= found.high
    assert found.value == statistics.median(figures)
    assert min(figures) <= found.low
    assert found.high <= max(figures)


@pytest.mark.parametrize(("count", "left"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (20, 5), (100, 39)])
def test_how_many_are_left_out(count: int, left: int) -> None:
    """The table in Conover's Practical Nonparametric Statistics, for 95 %."""
    found = median([float(one) for one in range(count)])
    assert (found.low, found.high) == (float(left), float(count - 1 - left))


def test_the_true_median_is_within_as_often_as_promised() -> None:
    chance = random.Random(1)
    within = sum(
        one.low <= 0.5 <= one.high
        for one in (median([chance.random() for _ in range(15)]) for _ in range(2000))
    )
    assert within / 2000 > 0.945


def test_there_is_no_median_of_nothing() -> None:
    with pytest.raises(ValueError, match="median"):
        median([])
