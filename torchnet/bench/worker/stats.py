"""Medians with their intervals, without an assumption of how figures are distributed: benchmarks have long tails.

The interval is between two of the sorted figures, so that the true median lies within with at least the wanted
probability: how many of n figures lie below it is binomial (Hahn and Meeker, Statistical Intervals, 5.2).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
LEAST = 6  # figures: of fewer there is no interval of this confidence (2 / 2**5 is more than 0.05)


@dataclass(frozen=True)
class Median:
    """``low`` and ``high`` are the interval's ends; with fewer than LEAST figures, the least and the most."""

    value: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """Half of the interval, over the median; infinite where that is 0."""
        return (self.high - self.low) / 2 / self.value if self.value else math.inf


def median(figures: Sequence[float]) -> Median:
    """Of at least one figure.

    Raises:
        ValueError: there is none.
    """
    if not figures:
        raise ValueError("a median of nothing")
    ordered = sorted(figures)
    count = len(ordered)
    below = _below(count)
    return Median(statistics.median(ordered), ordered[below], ordered[count - 1 - below], count)


def _below(count: int) -> int:
    """How many figures may be left out at each end: the most that leave the confidence."""
    total = 0.0
    for left in range(count // 2):
        total += math.comb(count, left) * 0.5**count
        if 2 * total > 1 - CONFIDENCE:
            return max(0, left - 1)
    return max(0, count // 2 - 1)
