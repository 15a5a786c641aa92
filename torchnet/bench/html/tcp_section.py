"""The sections of raw TCP: each pair of nodes in both directions, and the latency."""

from __future__ import annotations

from torchnet.bench.html import numbers, plots, view_model
from torchnet.bench.html.markup import Column, Html, Ids, details, scroll, section, table, tag
from torchnet.bench.results import Latency, Results, Tcp
from torchnet.units import counted, si_scale

_COLUMNS = (
    Column("from → to"), Column("network"), Column("direction"), Column("streams", True), Column("rate", True),
    Column("in bits", True), Column("95 % interval", True), Column("of the line", True), Column("retransmitted", True),
    Column("CPU use", True), Column("throttled", True), Column("busiest core", True),
    Column("window-limited", True),
)  # fmt: skip
_LATENCY = (
    Column("between"), Column("network"), Column("message", True), Column("round trips", True), Column("p50", True),
    Column("p99", True), Column("minimum", True),
)  # fmt: skip
_SHOWN = 12  # rows up to which a table is shown unfolded


def paths(results: Results, ids: Ids) -> Html:
    if not results.tcp:
        return Html("")
    parts = [
        tag("p", "Plain TCP sockets on the same addresses, without PyTorch.", class_="soft"),
        *(_pairs(results, network, ids) for network in view_model.networks(results)),
    ]
    whole = table(ids, "Raw TCP, each direction", _COLUMNS, [_row(results, row) for row in results.tcp])
    parts.append(_fold(whole, len(results.tcp), "All directions"))
    return section(ids, "tcp", "Raw TCP", parts)


def latency(results: Results, ids: Ids) -> Html:
    if not results.latency:
        return Html("")
    rows = [_answer(results, row) for row in results.latency]
    whole = table(ids, "Round trips of a small message", _LATENCY, rows)
    sentences = []
    for network in view_model.networks(results):
        if slowest := view_model.slowest_answer(results, network):
            text = f"{view_model.role(results, network)}: the slowest pair is {view_model.path(results, slowest)}, "
            text += f"{numbers.time(slowest.p50)} in the median and {numbers.time(slowest.p99)} at the 99th percentile."
            sentences.append(tag("p", text))
    return section(ids, "latency", "Latency", sentences, _fold(whole, len(rows), "All pairs"))


def _fold(whole: Html, rows: int, label: str) -> Html:
    return whole if rows <= _SHOWN else details(f"{label} ({rows:,} rows)", whole)


def _pairs(results: Results, network: str, ids: Ids) -> Html:
    """Show the pairs of one network, as a heat map if there are enough of them."""
    rows = view_model.one_way(results, network)
    slowest = view_model.slowest(rows)
    if slowest is None:
        return Html("")
    fastest = max(rows, key=lambda row: row.rate.median)
    message = (
        f"{view_model.role(results, network)}, one direction at a time, {counted(slowest.streams, 'stream')}: "
        f"the slowest is {view_model.path(results, slowest)} with {numbers.rate(slowest.rate.median)}, the fastest "
        f"{view_model.path(results, fastest)} with {numbers.rate(fastest.rate.median)}."
    )
    rates = view_model.matrix(rows)
    if not rates:
        return tag("p", message)
    nodes = sorted({node for pair in rates for node in pair})
    places = {node: place for place, node in enumerate(nodes)}
    names = [f"{numbers.shorten(results.name(node), 16)}\u2002{places[node]}" for node in nodes]
    _, prefix = si_scale(max(rates.values()))
    title = f"Raw TCP over {network}: each pair of nodes"
    label = ids.new("matrix")
    svg = plots.heat(
        ids, title, message, names, {(places[a], places[b]): rate for (a, b), rate in rates.items()}
    )
    return Html(
        tag("h3", title, id=label)
        + tag(
            "figure",
            tag(
                "figcaption",
                f"{message} Values in {prefix}B/s; colours show the share of the fastest, a frame marks the slowest.",
            ),
            plots.heat_key(),
            scroll(svg, label),
        )
    )


def _row(results: Results, row: Tcp) -> tuple[str, ...]:
    again = f"{row.repeated:,} of {row.segments:,}"
    if row.segments:
        again += f" ({numbers.share(row.repeated / row.segments)})"
    return (
        view_model.path(results, row), row.network, "both at once" if row.both else "one way", str(row.streams),
        numbers.rate(row.rate.median), numbers.bits(row.rate.median * 8),
        numbers.interval(numbers.rates(row.rate.low, row.rate.high), row.rate.count, "slice"),
        numbers.share(row.ceiling_share), again, numbers.share(row.busy), numbers.share(row.throttled),
        numbers.share(row.core), numbers.share(row.window_limited),
    )  # fmt: skip


def _answer(results: Results, row: Latency) -> tuple[str, ...]:
    return (
        view_model.path(results, row), row.network, f"{row.bytes:,} B", f"{row.count:,}", numbers.time(row.p50),
        numbers.time(row.p99), numbers.time(row.least),
    )  # fmt: skip
