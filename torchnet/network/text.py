"""Foreign text (annotation values, names from other machines) made fit for one line of a terminal."""

from __future__ import annotations

from collections.abc import Sequence


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
