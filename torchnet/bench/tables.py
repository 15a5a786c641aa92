"""The tables of a benchmark's summary: the columns of nccl-tests, raw TCP, and the matrix of pairs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torchnet.bench.results import Collective, Latency, Results, Tcp
from torchnet.text import printable

WIDEST_MATRIX = 12  # nodes; with more, only the slowest pairs are listed
_LISTED = 10
IN_JSON = "(all are in the --json results)"
_NAME = 16


@dataclass(frozen=True)
class TableRow:
    """One size of one collective.

    ``main`` is the backend's row, out of place if there is such a form. ``inside`` is the in-place row if ``main`` is
    out of place. ``other`` is the row of the compared network, in the same form as ``main``.
    """

    main: Collective | None
    inside: Collective | None
    other: Collective | None


def rows(results: Results, collective: str) -> list[TableRow]:
    """Return the rows in order of size."""
    own, compare = networks(results)
    found: dict[tuple[int, str, str], dict[tuple[str, bool], Collective]] = {}
    for one in results.collectives:
        if one.collective == collective and one.network in (own, compare):
            place = "own" if one.network == own else "other"
            found.setdefault((one.size, one.dtype, one.redop), {})[place, one.in_place] = one
    table_rows = []
    for _, forms in sorted(found.items()):
        out, inside = forms.get(("own", False)), forms.get(("own", True))
        other = forms.get(("other", False)) or forms.get(("other", True))
        table_rows.append(TableRow(out or inside, inside if out else None, other))
    return table_rows


def networks(results: Results) -> tuple[str, str]:
    """Return (the backend's interface, the compared interface or "")."""
    if results.setup is None:
        return "", ""
    return results.setup.interface, results.setup.compare


def collective(results: Results, name: str) -> Iterator[str]:
    """Yield the table of one collective: its name, the column headings, and one line for each size."""
    found = rows(results, name)
    own, compare = networks(results)
    first = next(one for row in found for one in (row.main, row.other) if one is not None)
    compared = any(row.other for row in found)
    inside = any(row.inside for row in found) and not compared
    share = any(row.main is not None and row.main.ceiling_share is not None for row in found)
    shape = [first.dtype, first.redop] if first.redop not in ("", "none") else [first.dtype]
    shape += [f"root {first.root}"] if first.root >= 0 else []
    shape += ["in place"] if first.in_place else []
    yield f"{printable(name)} · {' · '.join(map(printable, shape))}"
    gap = f"  {'':7}" if share else ""
    if compared or inside:
        left, right = (own, compare) if compared else ("out-of-place", "in-place")
        yield f"{'':{_HEAD}}  {_centred(left, _FIGURES)}{gap}  {_centred(right, _FIGURES)}"
    twice = inside or compared
    words = f"{'time':>9} {'algbw':>7} {'busbw':>7} {'#wrong':>6}"
    units = f"{'(us)':>9} {'(GB/s)':>7} {'(GB/s)':>7} {'':>6}"
    yield (
        f"{'size':>10} {'count':>10} {'type':>8} {'redop':>5} {'root':>4}  {words}"
        + (f"  {'of line':>7}" if share else "")
        + (f"  {words}" if twice else "")
        + (f"  {'ratio':>6}" if compared else "")
    )
    head = f"{'(B)':>10} {'(elements)':>10} {'':>8} {'':>5} {'':>4}"
    yield f"{head}  {units}{gap}{f'  {units}' if twice else ''}".rstrip()
    for row in found:
        one = row.main or row.other
        assert one is not None
        line = (
            f"{one.size:>10} {one.elements:>10} {_type(one.dtype):>8} {one.redop or 'none':>5} {one.root:>4}"
        )
        line += f"  {_figures(row.main)}"
        if share:
            line += f"  {share_text(row.main.ceiling_share if row.main else None):>7}"
        if twice:
            line += f"  {_figures(row.other if compared else row.inside)}"
        if row.main and row.other and row.other.busbw:
            line += f"  {ratio(row.main.busbw / row.other.busbw) + 'x':>6}"
        yield line.rstrip()


_HEAD = 10 + 1 + 10 + 1 + 8 + 1 + 5 + 1 + 4
_FIGURES = 9 + 1 + 7 + 1 + 7 + 1 + 6


def _figures(one: Collective | None) -> str:
    if one is None:
        return f"{'-':>9} {'-':>7} {'-':>7} {'-':>6}"
    wrong = "N/A" if one.wrong is None else str(one.wrong)
    time = one.time.median * 1e6
    return f"{number(time):>9} {number(one.algbw / 1e9):>7} {number(one.busbw / 1e9):>7} {wrong:>6}"


def number(value: float) -> str:
    """Format with four digits, never with an exponent: 0.0123, 1.234, 117.9, 20613."""
    if value >= 1000:
        return f"{value:.0f}"
    for digits, limit in ((1, 100), (2, 10), (3, 1)):
        if value >= limit:
            return f"{value:.{digits}f}"
    return f"{value:.4f}"


def ratio(value: float) -> str:
    """Format with three digits: 0.987, 1.04, 12.3, 413."""
    return f"{value:.{3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0}f}"


def _type(dtype: str) -> str:
    return {"float32": "float", "float64": "double", "float16": "half"}.get(dtype, printable(dtype, 8))


def _centred(text: str, width: int) -> str:
    return f" {printable(text, width - 4)} ".center(width, "-")


def share_text(share: float | None) -> str:
    """Round a share down, so that 100 % means all."""
    return "" if share is None else f"{int(share * 1000 + 1e-9) / 10:.1f} %"


def raw_tcp(results: Results) -> Iterator[str]:
    """Yield raw TCP for each pair of nodes: one direction, the other, both at once, and the round-trip time."""
    for network in dict.fromkeys(one.network for one in results.tcp):
        pairs = _pairs([one for one in results.tcp if one.network == network])
        streams = max(one.streams for one in results.tcp if one.network == network)
        count = "1 stream" if streams == 1 else f"{streams} streams"
        yield f"raw TCP · {printable(network)} · {count} · Gbit/s"
        shared = any(one.ceiling_share is not None for pair in pairs.values() for one in pair.values())
        named = {pair: f"{_name(results, pair[0])} - {_name(results, pair[1])}" for pair in pairs}
        width = max(map(len, named.values()))
        yield (
            f"{'pair':<{width}}  {'->':>8} {'<-':>8}  {'both: ->':>8} {'<-':>8}"
            + (f"  {'of line':>7}" if shared else "")
            + f"  {'p50 us':>8} {'p99 us':>8}"
        )
        for (source, target), pair in sorted(pairs.items()):
            cells = [pair.get(key) for key in ("there", "back", "both there", "both back")]
            shares = [one.ceiling_share for one in cells[:2] if one and one.ceiling_share is not None]
            yield (
                named[source, target].ljust(width)
                + f"  {_gbit(cells[0]):>8} {_gbit(cells[1]):>8}  {_gbit(cells[2]):>8} {_gbit(cells[3]):>8}"
                + (f"  {share_text(min(shares) if shares else None):>7}" if shared else "")
                + _latency(results, network, source, target)
            ).rstrip()


def _pairs(measured: Sequence[Tcp]) -> dict[tuple[int, int], dict[str, Tcp]]:
    found: dict[tuple[int, int], dict[str, Tcp]] = {}
    for one in measured:
        pair = (min(one.source, one.target), max(one.source, one.target))
        way = "there" if one.source == pair[0] else "back"
        found.setdefault(pair, {})[f"both {way}" if one.both else way] = one
    return found


def _name(results: Results, node: int) -> str:
    return printable(results.name(node))[:_NAME]


def _gbit(one: Tcp | None) -> str:
    return "-" if one is None else number(one.rate.median * 8 / 1e9)


def _latency(results: Results, network: str, source: int, target: int) -> str:
    found: list[Latency] = [
        one
        for one in results.latency
        if one.network == network and {one.source, one.target} == {source, target}
    ]
    if not found:
        return f"  {'-':>8} {'-':>8}"
    slowest = max(found, key=lambda one: one.p50)
    return f"  {number(slowest.p50 * 1e6):>8} {number(slowest.p99 * 1e6):>8}"


def matrix(results: Results, network: str) -> Iterator[str]:
    """Yield raw TCP from each node (a row) to each other node, and the slowest pair. Of many nodes only the slowest
    pairs."""
    one_way = {
        (one.source, one.target): one for one in results.tcp if one.network == network and not one.both
    }
    nodes = sorted({node for pair in one_way for node in pair})
    if len(nodes) < 2:
        return
    ranked = sorted(one_way.values(), key=lambda one: one.rate.median)
    middle = statistics.median(one.rate.median for one in ranked)
    yield f"raw TCP · {printable(network)} · rows send to columns · Gbit/s"
    if len(nodes) <= WIDEST_MATRIX:
        width = max(8, *(len(_name(results, node)) for node in nodes))
        yield f"{'':<{width}}" + "".join(f"  {_name(results, node):>{width}}" for node in nodes)
        for source in nodes:
            cells = ("·" if source == to else _gbit(one_way.get((source, to))) for to in nodes)
            yield f"{_name(results, source):<{width}}" + "".join(f"  {cell:>{width}}" for cell in cells)
    else:
        for one in ranked[:_LISTED]:
            yield f"  {_way(results, one)}: {_gbit(one)}"
        yield f"  … and {len(ranked) - min(len(ranked), _LISTED)} faster ones {IN_JSON}"
    slowest = ranked[0]
    part = f", {slowest.rate.median / middle * 100:.0f} % of the median" if middle else ""
    yield f"slowest: {_way(results, slowest)}, {_gbit(slowest)} Gbit/s{part}"


def _way(results: Results, one: Tcp) -> str:
    return f"{_name(results, one.source)} -> {_name(results, one.target)}"
