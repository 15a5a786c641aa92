"""What a comparison of two runs consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchnet.bench.diff.verdicts import Verdict
from torchnet.bench.results import Figure

Kind = Literal["large", "small", "tcp", "latency"]


@dataclass(frozen=True)
class Row:
    """One row that both runs have. The figures are bytes per second, of latency seconds. ``ratio`` is new over old."""

    what: str
    kind: Kind
    old: Figure
    new: Figure
    ratio: float
    verdict: Verdict


@dataclass(frozen=True)
class Series:
    """Rows that belong together, as one: all large sizes of a collective, all directions of raw TCP. ``ratio`` is new
    over old, of rates, and of latency's times; ``low`` and ``high`` are its interval. Verdicts count; those of single
    rows are to look closer."""

    what: str
    kind: Kind
    rows: tuple[Row, ...]
    ratio: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True)
class Diff:
    """``setup``: sentences on what else is different, which may be the reason. ``alone``: rows that are slower by a lot
    in a series that is not. ``wrong``: rows of the new run whose results are wrong, in words. ``missing``: what the new
    run could not measure, and why, where rows of the old one are not in it. ``early``: the new run did not come to its
    end."""

    setup: tuple[str, ...]
    series: tuple[Series, ...]
    alone: tuple[Row, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    early: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for series in self.series for row in series.rows)

    @property
    def worse(self) -> bool:
        """Something is slower, and it is not noise; or the new run is no good, however fast."""
        return bool(self.wrong or self.missing or self.early or self.alone) or any(
            series.verdict == "slower" for series in self.series
        )
