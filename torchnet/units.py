"""Format numbers for people. Bytes use SI units (1 MB = 1,000,000 bytes), as usual for networks."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def size(count: int) -> str:
    """Format bytes with four significant digits: ``405.3 MB``, ``12 B``."""
    if count < 1000:
        return f"{count} B"
    value, unit = float(count), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 1 if value >= 100 else 2 if value >= 10 else 3
    return f"{value:.{digits}f} {_UNITS[unit]}"


def si_scale(value: float) -> tuple[float, str]:
    """Return the largest power of 1000 in which ``value``, to four digits, is at least 1, and its SI prefix."""
    power = 0
    while power < len(_PREFIXES) - 1 and value >= 999.95 * 1000**power:
        power += 1
    return float(1000**power), _PREFIXES[power]


def bit_rate(bits_per_s: float) -> str:
    """Format bits per second with up to four significant digits: ``2.5 Gbit/s``."""
    divisor, prefix = si_scale(bits_per_s)
    return f"{bits_per_s / divisor:.4g} {prefix}bit/s"


def percent(share: float) -> str:
    """Format a share (0 to 1) with two decimals, rounded down, so that ``100 %`` means all and ``0 %`` nothing."""
    if 0 < share < 0.0001:
        return "<0.01 %"
    hundredths = int(share * 10_000 + 1e-9)
    if hundredths % 100 == 0:
        return f"{hundredths // 100} %"
    return f"{hundredths / 100:.2f} %"


def seconds(duration: float) -> str:
    """Format seconds: ``0.42 s``, ``12.3 s``, ``5 min 03 s``, ``2 h 05 min``."""
    if duration < 10:
        return f"{duration:.2f} s"
    if duration < 59.95:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: ``1 node``, ``2 nodes``, ``2 processes``, ``2 batches``."""
    plural = noun + ("es" if noun.endswith(("s", "ch")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"
