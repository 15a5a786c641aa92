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
    steady: bool = False
    """The network decides it, and not the scheduler: by itself, too, it can tell that something is slower."""


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
    in a series that is not. Of the new run, in words: ``wrong``: rows whose results are wrong; ``missing``: what it
    could not measure, where rows of the old one are not in it; ``findings``: what is wrong with its network and was not
    before. ``early``: it did not come to its end."""

    setup: tuple[str, ...]
    series: tuple[Series, ...]
    alone: tuple[Row, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    early: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for series in self.series for row in series.rows)

    @property
    def worse(self) -> bool:
        """Something is slower, and it is not noise; or the new run is no good, however fast."""
        return bool(self.wrong or self.missing or self.findings or self.early or self.alone) or any(
            series.verdict == "slower" for series in self.series
        )
