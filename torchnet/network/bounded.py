"""JSON from others, read within bounds: size and depth are refused before a parser sees the text."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_DIGITS = 20  # enough for 64 bits


def loads(data: str | bytes, *, max_size: int, max_depth: int | None = None) -> Any:
    """The value of ``data``, which is UTF-8 where it is bytes.

    ``max_size`` counts bytes (characters of a str), ``max_depth`` levels of arrays and objects; without the
    latter Python's own limit (about 1,000) stands, which costs no scan.

    Raises ValueError for all that is wrong, as the rest of a sentence: "is no JSON: … at line 1, column 2".
    """
    if len(data) > max_size:
        unit = "bytes" if isinstance(data, bytes) else "characters"
        raise ValueError(f"has {len(data):,} {unit}, at most {max_size:,} are read")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 at byte {error.start}") from None
    if max_depth is not None:
        _check_depth(text, max_depth)
    try:
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None


def _check_depth(text: str, limit: int) -> None:
    """json's scanner takes a frame of the C stack a level; this scan takes nothing and stops early."""
    depth, quoted = 0, False
    for match in _MARKS.finditer(text):
        mark = match.group()
        if mark == '"':
            quoted = not quoted
        elif quoted or mark[0] == "\\":
            continue  # a backslash outside a string is where the parser will stop, so nothing after it counts
        elif mark in "[{":
            depth += 1
            if depth > limit:
                raise ValueError(f"is nested deeper than {limit} levels at character {match.start()}")
        else:
            depth -= 1


def _integer(digits: str) -> int:
    # int() takes quadratic time, and Python before 3.10.7 has no limit of its own.
    if len(digits) > _DIGITS:
        raise ValueError(f"is no JSON to use: a number of {len(digits)} digits")
    return int(digits)


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("is no JSON to use: a number beyond all bounds")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"is no JSON: {name} is no number")
