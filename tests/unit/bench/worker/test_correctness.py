"""What goes into collectives and must come out: exact in every dtype, told apart by rank and place; errors count."""

from __future__ import annotations

import importlib.util
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from torchnet.bench.worker.correctness import CHUNK, EXACT, PERIOD, Pattern, patterns, reduce_rows, table

CPU = torch.device("cpu")
_COMBINE: dict[str, Any] = {"sum": torch.add, "prod": torch.mul, "min": torch.minimum, "max": torch.maximum}


@given(
    dtype=st.sampled_from(list(EXACT)),
    op=st.sampled_from(["sum", "prod", "min", "max"]),
    ranks=st.integers(1, 20) | st.sampled_from([64, 300]),
)
@settings(max_examples=60, deadline=None)
def test_a_reduction_in_the_dtype_itself_is_what_is_expected(dtype: str, op: str, ranks: int) -> None:
    made = patterns(dtype, op, ranks, CPU)  # type: ignore[arg-type]
    rows = []
    for rank in range(ranks):
        rows.append(torch.empty(PERIOD + 3, dtype=getattr(torch, dtype)))
        made.put.fill(rows[-1], rank)
    assert made.result.wrong(reduce(_COMBINE[op], rows), 0) == 0
    # ... in the other order, as a ring goes
    assert made.result.wrong(reduce(_COMBINE[op], reversed(rows)), 0) == 0


@pytest.mark.parametrize("dtype", list(EXACT))
@pytest.mark.parametrize("op", [None, "sum", "prod"])
@pytest.mark.parametrize("ranks", [2, 8, 300])
def test_neither_a_missing_nor_a_shifted_rank_looks_right(dtype: str, op: str | None, ranks: int) -> None:
    row = table(dtype, op, ranks)  # type: ignore[arg-type]
    estimate_shift = [*row[1:], *row[:1]]
    assert row != estimate_shift
    if op:
        whole = reduce_rows(row, op, ranks)  # type: ignore[arg-type]
        assert whole != reduce_rows(row, op, ranks - 1)  # type: ignore[arg-type]
        assert whole != [*whole[1:], *whole[:1]]


@given(
    size=st.integers(1, 3000) | st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7]),
    shift=st.integers(0, 5000),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_each_planted_error_is_counted(size: int, shift: int, data: st.DataObject) -> None:
    put = patterns("float32", None, 4, CPU).put
    tensor = torch.empty(size)
    put.fill(tensor, shift)
    assert put.wrong(tensor, shift) == 0
    row = table("float32", None, 4)
    assert [int(x) for x in tensor[:50]] == [row[(shift + i) % PERIOD] for i in range(min(50, size))]
    places = data.draw(st.sets(st.integers(0, size - 1), max_size=5))
    for place in places:
        tensor[place] = float("nan") if place % 2 else tensor[place] + 1
    assert put.wrong(tensor, shift) == len(places)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32"])
def test_an_average_may_be_rounded_and_no_more(dtype: str) -> None:
    ranks, kind = 3, getattr(torch, dtype)
    made = patterns(dtype, "avg", ranks, CPU)
    whole = torch.zeros(PERIOD, dtype=torch.float64)
    first = torch.zeros(PERIOD, dtype=kind)
    for rank in range(ranks):
        row = torch.empty(PERIOD, dtype=kind)
        made.put.fill(row, rank)
        whole += row
        first += (row / ranks).to(kind)
    assert made.result.wrong((whole / ranks).to(kind), 0) == 0
    if kind.is_floating_point:
        assert made.result.wrong(first, 0) == 0  # divided before it is summed
    broken = (whole / ranks).to(kind)
    broken[5] += 1 + int(made.result.tolerance * 2)
    assert made.result.wrong(broken, 0) == 1


def test_nothing_is_checked_in_one_piece() -> None:
    """A message of 1 GiB needs no second one beside it."""
    tensor = torch.empty(5 * CHUNK, dtype=torch.int8)
    parts = Pattern.of(table("int8", None, 2), torch.int8, CPU)._parts(tensor, 3)
    assert [part.numel() for part, _ in parts] == [CHUNK] * 5
