"""What changed between two runs, as the terminal shows it."""

from __future__ import annotations

from torchnet.bench.diff.model import Diff, Row, Series

_SHOWN = 20  # rows of one kind; the rest is counted


def text(diff: Diff) -> str:
    """What is different besides comes first, since it may be the reason; then each series, then rows to look at."""
    parts = []
    if diff.setup:
        parts.append(_block("What else is different:", diff.setup))
    if diff.series:
        parts.append("\n".join(_table([_series(one) for one in diff.series])))
    alone = [*diff.alone]
    if alone:
        parts.append(_block("Slower by themselves:", [_row(row) for row in alone]))
    look = [row for row in diff.rows if row.verdict in ("slower", "faster") and row not in alone]
    if look:
        parts.append(_block("Rows that changed by more than their intervals:", [_row(row) for row in look]))
    for words, names in (("Only in the old run:", diff.only_old), ("Only in the new run:", diff.only_new)):
        if names:
            parts.append(_block(words, names))
    parts.append(_end(diff))
    return "\n\n".join(parts) + "\n"


def _end(diff: Diff) -> str:
    slower = [series.what for series in diff.series if series.verdict == "slower"] + [
        row.what for row in diff.alone
    ]
    if slower:
        return f"Slower: {'; '.join(slower)}."
    if not diff.series:
        return "The two runs have nothing in common that could be compared."
    unclear = [series.what for series in diff.series if series.verdict == "unclear"]
    if unclear:
        return f"Nothing is slower for certain. Too noisy to tell, run both again: {'; '.join(unclear)}."
    faster = [series.what for series in diff.series if series.verdict == "faster"]
    return f"Faster: {'; '.join(faster)}." if faster else "Nothing changed by more than noise."


def _block(words: str, lines: list[str] | tuple[str, ...]) -> str:
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  … and {len(lines) - _SHOWN} more")
    return "\n".join([words, *shown])


def _series(series: Series) -> tuple[str, ...]:
    interval = f"{_change(series.low)} … {_change(series.high)}"
    return series.what, _change(series.ratio), interval, _rows(len(series.rows)), series.verdict


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _row(row: Row) -> str:
    return f"{row.what}: {_figure(row, row.old.median)}, now {_figure(row, row.new.median)} ({_change(row.ratio)})"


def _figure(row: Row, value: float) -> str:
    return f"{value * 1e6:.1f} µs" if row.kind == "latency" else f"{value / 1e9:.4g} GB/s"


def _change(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.1f} %"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    rows = [("what", "change", "interval", "of", ""), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    found = []
    for what, *cells in rows:
        line = [
            what.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)),
        ]
        found.append("  ".join(line).rstrip())
    return found
