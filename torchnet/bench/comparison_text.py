"""The differences between two runs as text for the terminal.

The files may come from anywhere: names, values and reasons are escaped, so that none of them controls the terminal or
starts a line of its own.
"""

from __future__ import annotations

from torchnet.bench.comparison import ComparedRow, ComparedSeries, Comparison
from torchnet.bench.significance import Verdict
from torchnet.text import printable

_LONGEST = 500  # characters quoted from a file in one place
_SHOWN = 20  # rows listed of one kind; the others are counted


def text(diff: Comparison) -> str:
    """Order the parts by importance: wrong results first, because they invalidate every figure; then differences of the
    set-up, which may be the cause; then each series, then rows to look at."""
    parts = []
    if diff.wrong:
        parts.append(_block("Wrong results in the new run:", diff.wrong))
    if diff.setup:
        parts.append(_block("Other differences:", diff.setup))
    if diff.series:
        parts.append("\n".join(_table([_series(one) for one in diff.series])))
    alone = [*diff.alone]
    if alone:
        parts.append(_block("Single rows that are slower:", [_row(row) for row in alone]))
    look = [row for row in diff.rows if row.verdict in ("slower", "faster") and row not in alone]
    if look:
        parts.append(_block("Rows that changed by more than their intervals:", [_row(row) for row in look]))
    for words, names in (
        ("Only in the old run:", diff.only_old),
        ("Only in the new run:", diff.only_new),
        ("Not measured in the new run:", diff.missing),
        ("New findings:", diff.findings),
    ):
        if names:
            parts.append(_block(words, names))
    parts.append(_end(diff))
    return "\n\n".join(parts) + "\n"


def _end(diff: Comparison) -> str:
    ends = []
    if diff.wrong:
        rows = "1 row has" if len(diff.wrong) == 1 else f"{len(diff.wrong)} rows have"
        ends.append(f"Wrong: {rows} wrong results in the new run.")
    if diff.early:
        ends.append("Ended early: the new run is incomplete.")
    if diff.missing:
        ends.append(f"Missing: {_rows(len(diff.only_old))} of the old run; the new run reports why.")
    if diff.findings:
        ends.append("New findings: the new run reports network problems that the old run did not.")
    if slower := [*_named(diff, "slower"), *(printable(row.what, _LONGEST) for row in diff.alone)]:
        ends.append(f"Slower: {'; '.join(slower)}.")
    if not diff.series:
        ends.append("Nothing to compare: the runs have no rows in common.")
    if ends:
        return "\n".join(ends)
    if unclear := _named(diff, "unclear"):
        end = f"No significant slowdown. Too noisy to compare; rerun both: {'; '.join(unclear)}."
    elif faster := _named(diff, "faster"):
        end = f"Faster: {'; '.join(faster)}."
    else:
        end = "No significant change."
    return f"{end} Not compared: {_rows(len(diff.only_old))} of the old run." if diff.only_old else end


def _named(diff: Comparison, verdict: Verdict) -> list[str]:
    return [printable(series.what, _LONGEST) for series in diff.series if series.verdict == verdict]


def _block(words: str, lines: list[str] | tuple[str, ...]) -> str:
    shown = [f"  {printable(line, _LONGEST)}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  … and {len(lines) - _SHOWN} more")
    return "\n".join([words, *shown])


def _series(series: ComparedSeries) -> tuple[str, ...]:
    interval = f"{_change(series.low)} … {_change(series.high)}"
    return (
        printable(series.what, _LONGEST),
        _change(series.ratio),
        interval,
        str(len(series.rows)),
        series.verdict,
    )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _row(row: ComparedRow) -> str:
    return f"{row.what}: {_figure(row, row.old.median)}, now {_figure(row, row.new.median)} ({_change(row.ratio)})"


def _figure(row: ComparedRow, value: float) -> str:
    return f"{value * 1e6:.1f} µs" if row.kind == "latency" else f"{value / 1e9:.4g} GB/s"


def _change(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.1f} %"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    rows = [("series", "change", "interval", "rows", "verdict"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    found = []
    for what, *cells in rows:
        line = [
            what.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)),
        ]
        found.append("  ".join(line).rstrip())
    return found
