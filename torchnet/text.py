"""Untrusted text: escape it for one line of a terminal, and parse JSON within limits on size and depth."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn


def printable(text: str, limit: int | None = None) -> str:
    """Escape everything in ``text`` that a terminal could interpret, or that hides or reorders other text.

    Characters for which ``str.isprintable`` is false become ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN``: control
    characters including newline, tab and ESC (hence every ANSI sequence), C1, bidirectional and zero-width marks, line
    separators, lone surrogates, private and unassigned code points. Backslashes are left alone, so the function is
    idempotent. The result can always be encoded as UTF-8.

    Args:
        limit: Characters after which the text is cut; its full length is appended.
    """
    cut = text if limit is None or len(text) <= limit else text[:limit]
    shown = cut if cut.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in cut)
    return shown if len(cut) == len(text) else f"{shown}… ({len(text)} characters)"


def listed(names: Sequence[str], limit: int = 3) -> str:
    """Join the first ``limit`` names, escaped, and count the rest: ``a, b, c and 997 more``."""
    shown = ", ".join(printable(name, 80) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def listed_ranks(ranks: Sequence[int], limit: int = 8) -> str:
    """Name ranks: ``rank 3``, ``ranks 0, 1`` or, beyond ``limit``, ``ranks 0, 1 and 997 more``."""
    return f"rank{'s' if len(ranks) > 1 else ''} {listed([str(rank) for rank in ranks], limit)}"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_DIGITS = 20  # enough for 64 bits


def loads(data: str | bytes, *, max_size: int, max_depth: int | None = None) -> Any:
    """Parse JSON; bytes are decoded as UTF-8.

    Args:
        max_size: Limit in bytes, or in characters of a str.
        max_depth: Limit on nested arrays and objects. None leaves it to Python's recursion limit (about 1,000 levels),
            which needs no extra scan.

    Raises:
        ValueError: ``data`` is too large, too deep or not JSON. The text completes a sentence whose subject is the
            caller's: "is not JSON: … at line 1, column 2".
    """
    if len(data) > max_size:
        unit = "bytes" if isinstance(data, bytes) else "characters"
        raise ValueError(f"has {len(data):,} {unit}; the limit is {max_size:,}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None
    if max_depth is not None:
        _check_depth(text, max_depth)
    try:
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _check_depth(text: str, limit: int) -> None:
    """Check the depth with a flat scan, since json's scanner uses a C stack frame per level."""
    depth, quoted = 0, False
    for match in _MARKS.finditer(text):
        mark = match.group()
        if mark == '"':
            quoted = not quoted
        elif quoted or mark[0] == "\\":
            continue  # the parser will stop at a backslash outside a string, so what follows does not matter
        elif mark in "[{":
            depth += 1
            if depth > limit:
                raise ValueError(f"is nested deeper than {limit} levels at character {match.start()}")
        else:
            depth -= 1


def _integer(digits: str) -> int:
    # int() takes quadratic time, and Python before 3.10.7 does not limit the number of digits.
    if len(digits) > _DIGITS:
        raise ValueError(f"is not usable JSON: a number has {len(digits)} digits")
    return int(digits)


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("is not usable JSON: a number is out of range")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"is not JSON: {name} is not allowed")
