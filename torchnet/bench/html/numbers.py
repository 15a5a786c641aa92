"""Format figures for the report. Rates use SI units, as networks do; message sizes use powers of 1024."""

from __future__ import annotations

from torchnet import units
from torchnet.bench.worker.stats import LEAST

NONE = "–"
GAP = "\u00a0"  # between a number and its unit, which stay on one line
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_TIMES = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


def rate(bytes_per_s: float) -> str:
    """``117.4 MB/s``."""
    return f"{size(bytes_per_s)}/s"


def size(count: float) -> str:
    """``405.3 MB``."""
    return units.size(round(count)).replace(" ", GAP)


def bits(bits_per_s: float) -> str:
    """``2.5 Gbit/s``."""
    return units.bit_rate(bits_per_s).replace(" ", GAP)


def binary(count: int) -> str:
    """``1 KiB``, ``1.5 MiB``."""
    value, power = float(count), 0
    while value >= 1024 and power < len(_BINARY) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.4g}{GAP}{_BINARY[power]}"


def time(seconds: float) -> str:
    """Format with three digits: ``85.1 µs``, ``2.04 ms``, ``1.2 s``."""
    for unit, worth in _TIMES:
        if seconds >= worth:
            return f"{seconds / worth:.3g}{GAP}{unit}" if seconds < 1000 * worth else f"{seconds:,.0f}{GAP}s"
    return f"{seconds * 1e6:.3g}{GAP}µs"


def share(value: float | None) -> str:
    return NONE if value is None else units.percent(value).replace(" ", GAP)


def between(low: float, high: float, digits: int = 4) -> str:
    """Format an interval to significant digits: ``1.79 … 1.84``."""
    return f"{low:.{digits}g}{GAP}…{GAP}{high:.{digits}g}"


def rates(low: float, high: float) -> str:
    """Format an interval of rates in one unit: ``121.2 … 122.4 MB/s``."""
    divisor, prefix = units.si_scale(high)
    return f"{between(low / divisor, high / divisor)}{GAP}{prefix}B/s"


def times(low: float, high: float) -> str:
    """Format an interval of times in one unit: ``84.2 … 86.1 µs``."""
    unit, worth = next(((unit, worth) for unit, worth in _TIMES if high >= worth), _TIMES[-1])
    return f"{between(low / worth, high / worth, 3)}{GAP}{unit}"


def interval(text: str, count: int, what: str) -> str:
    """Add to an interval of few figures that its ends are their minimum and maximum.

    ``84.2 … 86.1 µs (min … max of 2 batches)``; ``what`` is the noun of one figure.
    """
    return text if count >= LEAST else f"{text} (min{GAP}…{GAP}max of {units.counted(count, what)})"


def ratio(value: float) -> str:
    """Format a ratio: ``9.81 ×``."""
    return f"{value:.3g}{GAP}×"


def shorten(text: str, most: int) -> str:
    """Shorten to ``most`` characters for the labels of plots. The beginning and the end stay, where names of workers
    differ; the table has the whole name."""
    end = most // 2
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"
