"""The input of a collective and its expected result: small whole numbers in rows of a prime length.

Element ``i`` of rank ``r`` is the table's element ``(i + r) % PERIOD``. So the value of an element identifies its rank
and position, and the result of a reduction has the same period for any number of ranks. One row describes everything,
and a message of any size is filled and checked in chunks without a second copy. The table is chosen so that every
result is a whole number that the dtype holds exactly: results are compared for equality, except averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

PERIOD = 1021  # a prime, so that an algorithm's block size or a number of ranks does not divide it
CHUNK = 256 * PERIOD  # elements filled and compared at once
POISON = 127  # fills outputs before a call

Redop = Literal["sum", "prod", "min", "max", "avg"]

# The largest number up to which all whole numbers are exact; for bytes one less, because POISON must not be a result.
EXACT = {
    "float32": 1 << 24, "float64": 1 << 53, "float16": 1 << 11, "bfloat16": 1 << 8,
    "int32": (1 << 31) - 1, "int64": (1 << 63) - 1, "int8": 126, "uint8": 126,
}  # fmt: skip
_LARGEST_POWER = {"float16": 1 << 15, "bfloat16": 1 << 127, "float32": 1 << 127, "float64": 1 << 1023}
_MOST = 250  # maximum of one rank's element
_SCATTER = 2654435761  # a prime near 2^32 over the golden ratio (Knuth, volume 3, 6.4): neighbours differ


def table(dtype: str, op: Redop | None, ranks: int) -> list[int]:
    """Return one rank's row; ``op`` is None for collectives that do not reduce."""
    limit = EXACT[dtype]
    if op == "prod":
        # Powers of two are exact up to the dtype's largest.
        row = [2 if j % 3 == 0 else 1 for j in range(PERIOD)]
        return _thin_out(row, 1, _LARGEST_POWER.get(dtype, limit), "prod", ranks)
    # A rank's row repeats only after PERIOD ranks, so that no sum has more equal terms than that.
    most = min(_MOST, limit) if op in (None, "min", "max") else max(1, min(_MOST, limit // ranks))
    row = [(j * _SCATTER >> 16) % (most + 1) for j in range(PERIOD)]
    return _thin_out(row, 0, limit, "sum", ranks) if op in ("sum", "avg") else row


def _thin_out(row: list[int], neutral: int, limit: int, op: Redop, ranks: int) -> list[int]:
    """Return the row with enough elements made neutral that no result exceeds the limit."""
    step = 1
    while max(reduce_rows(row, op, ranks)) > limit:
        step *= 2
        row = [value if j % step == 0 else neutral for j, value in enumerate(row)]
        if step > PERIOD:
            raise ValueError(f"no {op} of {ranks} ranks is exact up to {limit}")
    return row


def reduce_rows(row: Sequence[int], op: Redop, ranks: int) -> list[int]:
    """Return the reduction of all ranks' rows; for an average, the sum."""
    found = list(row)
    for rank in range(1, ranks):
        shift = rank % PERIOD
        turned = [*row[shift:], *row[:shift]]
        if op in ("sum", "avg"):
            found = [a + b for a, b in zip(found, turned, strict=True)]
        elif op == "prod":
            found = [a * b for a, b in zip(found, turned, strict=True)]
        else:
            pick = min if op == "min" else max
            found = [pick(a, b) for a, b in zip(found, turned, strict=True)]
    return found


@dataclass(frozen=True)
class Pattern:
    """A row on the device, long enough to copy a chunk from any offset. ``tolerance`` is the allowed error, 0 for exact
    results."""

    tile: torch.Tensor
    tolerance: float = 0.0

    @classmethod
    def of(
        cls, row: Sequence[float], dtype: torch.dtype, device: torch.device, tolerance: float = 0.0
    ) -> Pattern:
        # An int64 is too small for large products; powers of two are exact in a double as well.
        double = max(row) > EXACT["int64"] or not all(float(value).is_integer() for value in row)
        once = torch.tensor(row, dtype=torch.float64 if double else torch.int64).to(dtype)
        return cls(once.repeat(CHUNK // PERIOD + 1).to(device), tolerance)

    def fill(self, tensor: torch.Tensor, shift: int) -> None:
        """Write the row repeatedly, starting at its element ``shift % PERIOD``."""
        for part, here in self._parts(tensor, shift):
            part.copy_(here)

    def wrong(self, tensor: torch.Tensor, shift: int) -> int:
        """Count the elements that differ from what :meth:`fill` would have written."""
        found = 0
        for part, here in self._parts(tensor, shift):
            if self.tolerance:
                # comparisons with NaN are false, so NaN counts as wrong
                found += int((~((part.double() - here.double()).abs() <= self.tolerance)).sum())
            else:
                found += int((part != here).sum())
        return found

    def _parts(self, tensor: torch.Tensor, shift: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        start, parts = shift % PERIOD, tensor.split(CHUNK) if tensor.numel() else ()
        return [(part, self.tile[start : start + part.numel()]) for part in parts]


@dataclass(frozen=True)
class Patterns:
    """``put`` is the ranks' input, ``result`` the result of a reduction."""

    put: Pattern
    result: Pattern


def patterns(dtype: str, op: Redop | None, ranks: int, device: torch.device) -> Patterns:
    kind: torch.dtype = getattr(torch, dtype)
    row = table(dtype, op, ranks)
    put = Pattern.of(row, kind, device)
    if op is None:
        return Patterns(put, put)
    whole = reduce_rows(row, op, ranks)
    if op != "avg":
        return Patterns(put, Pattern.of(whole, kind, device))
    # A backend may divide before or after the sum, so each term and each sum may be rounded once. For integers the
    # fraction is truncated.
    mean = [value / ranks for value in whole]
    tolerance = 1.0
    if kind.is_floating_point:
        tolerance = torch.finfo(kind).eps * (ranks + 1) * max(1.0, *mean)
    return Patterns(put, Pattern.of(mean, kind, device, tolerance))
