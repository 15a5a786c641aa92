"""Decide whether two runs differ by more than noise, for one row and for a whole series of sizes.

A row's interval describes one run only. From run to run a row moves by more than that, each row by its own amount. So
the series decides: how far all of its rows moved together (the Hodges-Lehmann estimate, which is the median of the
averages of all pairs, with the interval of Wilcoxon's signed ranks). A mean would follow a single row, and the median
of few rows wastes a third of them.

Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3.2 and 3.3.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torchnet.bench.results import Figure

Verdict = Literal["slower", "faster", "same", "unclear"]

CHANGE = 0.05
"""The least change of rate that counts: half of the 10 % that must be detected, which leaves the same margin for noise
on either side."""

SMALL_CHANGE = 0.5
"""The same for times of small messages. They depend on where the scheduler puts two processes: on one machine the same
run gave 9 and 63 µs."""

ONE_ROW = 0.3
"""The least change of a single large size that counts by itself: six times the noise of 5 %."""

ENOUGH = 8
"""The number of rows from which signed ranks have a 99 % interval."""

_Z = 2.576  # 99 %: a benchmark has many series, and each false alarm costs a day of work
_Z_WIDE = 1.96  # 95 %, to decide only whether to measure again


@dataclass(frozen=True)
class Change:
    """``ratio`` is new over old, of a figure where more is better. ``low`` and ``high`` are its interval."""

    ratio: float
    low: float
    high: float
    verdict: Verdict


def row(old: Figure, new: Figure, least: float = CHANGE) -> Change:
    """Compare one row: it changed if the medians differ by more than ``least`` and the intervals do not overlap."""
    ratio, low, high = _over(new.median, old.median), _over(new.low, old.high), _over(new.high, old.low)
    if not _counts(ratio, least):
        return Change(ratio, low, high, "same")
    if low <= 1 <= high:
        return Change(ratio, low, high, "unclear")
    return Change(ratio, low, high, "slower" if ratio < 1 else "faster")


def series(rows: Sequence[Change], least: float = CHANGE) -> Change:
    """Compare a series of one or more rows. With fewer than ENOUGH rows, most of them must have changed themselves."""
    logs = [_log(one.ratio) for one in rows]
    if len(rows) < ENOUGH:
        ratio = math.exp(statistics.median(logs))
        low = math.exp(statistics.median(_log(one.low) for one in rows))
        high = math.exp(statistics.median(_log(one.high) for one in rows))
        side = "slower" if ratio < 1 else "faster"
        clear = 2 * sum((one.high < 1) if ratio < 1 else (one.low > 1) for one in rows) > len(rows)
    else:
        middle, bottom, top = estimate_shift(logs)
        ratio, low, high = math.exp(middle), math.exp(bottom), math.exp(top)
        side = "slower" if ratio < 1 else "faster"
        clear = not low <= 1 <= high
    if _counts(ratio, least):
        return Change(ratio, low, high, ("slower" if side == "slower" else "faster") if clear else "unclear")
    if len(rows) >= ENOUGH and any(
        _counts(math.exp(end), 2 * least) for end in estimate_shift(logs, _Z_WIDE)
    ):
        return Change(
            ratio, low, high, "unclear"
        )  # the interval is wide enough to hide twice the least change that counts
    return Change(ratio, low, high, "same")


def estimate_shift(values: Sequence[float], z: float = _Z) -> tuple[float, float, float]:
    """Estimate how far the values are shifted from 0, with an interval, by default of 99 %. Needs at least ENOUGH
    values."""
    count = len(values)
    averages = sorted((values[i] + values[j]) / 2 for i in range(count) for j in range(i, count))
    left = count * (count + 1) / 4 - z * math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    out = max(0, math.floor(left))
    return statistics.median(averages), averages[out], averages[len(averages) - 1 - out]


def _counts(ratio: float, least: float) -> bool:
    """Return whether the change is large enough. Up and down are symmetric: 5 % slower and 5 % faster are the same
    factor."""
    return abs(_log(ratio)) > math.log1p(least)


def _over(new: float, old: float) -> float:
    if old > 0:
        return new / old
    return 1.0 if new == old else math.inf


def _log(ratio: float) -> float:
    return math.log(min(max(ratio, 1e-9), 1e9))
