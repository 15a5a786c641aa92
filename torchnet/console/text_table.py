"""Format tables as plain text, wrapped to a width."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = 2
NARROWEST = 24


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Lay out ``rows`` in columns under ``headings``.

    The first column is never wrapped, since users copy its names. If the other columns would become too narrow, each
    row becomes a paragraph instead: the first cell, then the others indented below it.

    Args:
        width: Characters per line, raised to 40 if smaller. Only the first column may exceed it.
    """
    width = max(40, width)
    first = max(len(row[0]) for row in (headings, *rows))
    needs = [max(len(row[column]) for row in (headings, *rows)) for column in range(1, len(headings))]
    widths = _shares(needs, width - first - GAP * len(needs))
    if any(got < min(need, NARROWEST) for got, need in zip(widths, needs, strict=True)):
        return "".join(_paragraph(headings, row, width) for row in rows)
    lines = [line for row in (headings, *rows) for line in _lines(row, [first, *widths])]
    return "".join(f"{line}\n" for line in lines)


def _shares(needs: Sequence[int], room: int) -> list[int]:
    """Return the column widths: what each needs, or an equal share of the ``room`` that narrower ones leave."""
    widths = [0] * len(needs)
    columns = len(needs)
    for column in sorted(range(len(needs)), key=needs.__getitem__):
        widths[column] = max(1, min(needs[column], room // columns))
        room -= widths[column]
        columns -= 1
    return widths


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(len(cell) for cell in cells)):
        parts = (cell[number] if number < len(cell) else "" for cell in cells)
        padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
        lines.append((" " * GAP).join(padded).rstrip())
    return lines


def _paragraph(headings: Sequence[str], row: Sequence[str], width: int) -> str:
    lines = [row[0]]
    for heading, cell in zip(headings[1:], row[1:], strict=True):
        lines += _wrap(cell, width, f"  {heading}: ", "    ")
    return "\n".join(lines) + "\n\n"


def _wrap(cell: str, width: int, first: str = "", others: str = "") -> list[str]:
    """Wrap ``cell`` into one or more lines. Paths are also broken after a slash, which textwrap does not do."""
    breakable = cell.replace("/", "/\v")
    lines = textwrap.wrap(
        breakable,
        width,
        initial_indent=first,
        subsequent_indent=others,
        replace_whitespace=False,
        break_on_hyphens=False,
    )
    return [line.replace("\v", "") for line in lines] or [first.rstrip()]
