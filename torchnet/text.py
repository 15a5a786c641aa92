"""Text from other machines: made fit for one line of a terminal, and JSON read within bounds.

Size and depth of JSON are checked before a parser sees the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn


def printable(text: str, limit: int | None = None) -> str:
    """``text`` with everything escaped that a terminal could act on, or that hides or reorders other text.

    Escaped as ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN`` is what ``str.isprintable`` refuses: control
    characters with newline, tab and ESC (hence every ANSI sequence), C1, bidi and zero-width marks, line
    separators, lone surrogates, private and unassigned code points. A backslash stays as it is, so applying
    it twice does no harm. The result can always be encoded as UTF-8.

    With ``limit`` a text of more characters is cut there, and its length is said.
    """
    cut = text if limit is None or len(text) <= limit else text[:limit]
    shown = cut if cut.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in cut)
    return shown if len(cut) == len(text) else f"{shown}… ({len(text)} characters)"


def listed(names: Sequence[str], limit: int = 3) -> str:
    """``a, b, c and 997 more``: printable, and short however many there are."""
    shown = ", ".join(printable(name, 80) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
