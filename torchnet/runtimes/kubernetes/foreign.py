"""JSON that was written in a pod, which may be anything: read without what JSON itself has not (pure)."""

from __future__ import annotations

import json
import math
from typing import Any

_DIGITS = 20  # of 2^64, or a sign and those of 2^63


def loads(text: str | bytes) -> Any:
    """The value. Numbers that no receipt may hold become None: NaN, the infinities, and integers beyond 64 bits.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=_finite, parse_int=_counted)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def number(value: object) -> float | None:
    """A finite number, or None: integers have no bounds in JSON."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _counted(text: str) -> int | None:
    return int(text) if len(text) <= _DIGITS else None


def _finite(text: str) -> float | None:
    return number(float(text))
