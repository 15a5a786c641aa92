"""Format tables as plain text, wrapped to a width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

GAP = 2
NARROWEST = 24
_NO_FLOORS: Mapping[int, int] = MappingProxyType({})


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Lay out ``rows`` in columns under ``headings``, as `Layout` does."""
    return Layout(headings, rows, width).text(rows)


class Layout:
    """The column widths of a table, to which rows can be added later.

    The first column is never wrapped, since users copy its names. If the other columns would become too narrow, each
    row becomes a paragraph instead: the first cell, then the others indented below it.

    Args:
        rows: The rows that decide on the widths.
        width: Characters per line, raised to 40 if smaller. Only columns that are never wrapped may exceed it.
        fixed: How many columns are never wrapped.
        floors: Characters to reserve, by column, for rows to come.
    """

    def __init__(
        self,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        width: int,
        *,
        fixed: int = 1,
        floors: Mapping[int, int] = _NO_FLOORS,
    ) -> None:
        self._headings, self._fixed, self._width = headings, fixed, max(40, width)
        needs = [
            max(floors.get(column, 0), *(len(row[column]) for row in (headings, *rows)))
            for column in range(len(headings))
        ]
        room = self._width - sum(needs[:fixed]) - GAP * (len(needs) - 1)
        widths = _shares(needs[fixed:], room)
        is_narrow = any(got < min(need, NARROWEST) for got, need in zip(widths, needs[fixed:], strict=True))
        self._widths = None if is_narrow else [*needs[:fixed], *widths]

    def text(self, rows: Sequence[Sequence[str]], *, headed: bool = True) -> str:
        """Return the text of ``rows``, below the headings if ``headed``."""
        if self._widths is None:
            return "".join(_paragraph(self._headings, row, self._width) for row in rows)
        shown = (self._headings, *rows) if headed else rows
        lines = [line for row in shown for line in _lines(row, self._widths, self._fixed)]
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


def _lines(row: Sequence[str], widths: Sequence[int], fixed: int) -> list[str]:
    cells = [[cell] for cell in row[:fixed]]
    cells += [_wrap(cell, width) for cell, width in zip(row[fixed:], widths[fixed:], strict=True)]
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
    breakable = cell if len(first) + len(cell) <= width else cell.replace("/", "/\v")
    lines = textwrap.wrap(
        breakable,
        width,
        initial_indent=first,
        subsequent_indent=others,
        replace_whitespace=False,
        break_on_hyphens=False,
    )
    return [line.replace("\v", "") for line in lines] or [first.rstrip()]
