"""Medians with intervals that assume no distribution: benchmark figures have long tails.

The interval lies between two of the sorted figures, so that it contains the true median with at least the wanted
probability: how many of n figures lie below the median is binomial.

Source: Hahn and Meeker, Statistical Intervals, 5.2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
LEAST = 6  # figures; fewer have no interval of this confidence (2 / 2**5 > 0.05)


@dataclass(frozen=True)
class Median:
    """``low`` and ``high`` are the interval's ends; with fewer than LEAST figures, the minimum and the maximum."""

    value: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """Return half of the interval over the median; infinite if the median is 0."""
        return (self.high - self.low) / 2 / self.value if self.value else math.inf


def median(figures: Sequence[float]) -> Median:
    """Return the median of at least one figure.

    Raises:
        ValueError: There are no figures.
    """
    if not figures:
        raise ValueError("cannot take the median of no figures")
    ordered = sorted(figures)
    count = len(ordered)
    below = _below(count)
    return Median(statistics.median(ordered), ordered[below], ordered[count - 1 - below], count)


def _below(count: int) -> int:
    """Return how many figures may be left out at each end: the most that keep the confidence."""
    total = 0.0
    for left in range(count // 2):
        total += math.comb(count, left) * 0.5**count
        if 2 * total > 1 - CONFIDENCE:
            return max(0, left - 1)
    return max(0, count // 2 - 1)
