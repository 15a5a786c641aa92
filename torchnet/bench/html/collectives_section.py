"""The sections of the collectives: busbw by message size, and the backend against the compared network."""

from __future__ import annotations

from torchnet.bench.html import numbers, plots, view_model
from torchnet.bench.html.markup import Column, Html, Ids, details, section, table, tag
from torchnet.bench.results import Collective, Line, Results
from torchnet.bench.summary import rate_source
from torchnet.bench.worker.stats import LEAST

_COLUMNS = (
    Column("size", True), Column("network"), Column("form"), Column("elements", True), Column("type"), Column("redop"),
    Column("root", True), Column("time", True), Column("95 % interval", True), Column("algbw", True),
    Column("busbw", True), Column("95 % interval", True), Column("of the line", True), Column("#wrong", True),
    Column("calls", True), Column("bytes, formula", True), Column("bytes, sockets", True),
    Column("bytes, interfaces", True), Column("CPU use", True), Column("throttled", True),
)  # fmt: skip


def collectives(results: Results, ids: Ids) -> Html:
    parts: list[Html] = [
        tag(
            "p",
            "busbw is nccl-tests' bus bandwidth: what each link carries, for any number of ranks. Times are medians "
            "over batches of calls; a batch counts with the mean of the ranks, for broadcast and reduce with the "
            f"slowest rank. Bands are 95 % intervals; with fewer than {LEAST} batches, the minimum and maximum.",
            class_="soft",
        )
    ]
    for name in view_model.kinds(results):
        found = view_model.groups(results, name)
        series = [
            plots.PlotSeries(
                numbers.shorten(view_model.role(results, group.network), 24), look,
                [row.size for row in group.rows], [row.busbw for row in group.rows],
                [row.busbw_low for row in group.rows], [row.busbw_high for row in group.rows],
            )
            for look, group in enumerate(found)
        ]  # fmt: skip
        levels = [
            _level(group, line, look)
            for look, group in enumerate(found)
            if (line := results.line(group.network))
        ]
        message = " ".join(_message(results, group) for group in found)
        title = f"{name}: busbw by message size"
        plot = plots.lines(ids, title, message, series, levels, quantity="busbw", unit="B/s")
        rows = [row for row in results.collectives if view_model.kind(row) == name]
        figures = table(ids, f"{name}, each size and network", _COLUMNS, [_row(row) for row in rows])
        heading = tag("h3", name)
        figure = tag("figure", tag("figcaption", message), plot)
        parts += [heading, figure, details(f"All figures of {name}", figures)]
    if results.lines:
        parts.append(_lines(results, ids))
    return section(ids, "collectives", "Collectives", parts)


def against(results: Results, ids: Ids) -> Html:
    """Show the ratio of the backend's busbw to the compared network's."""
    found = view_model.ratios(results)
    if not found:
        return Html("")
    names = list(dict.fromkeys(one.name for one in found))
    series = []
    for look, name in enumerate(names):
        of = [one for one in found if one.name == name]
        series.append(
            plots.PlotSeries(
                numbers.shorten(name, 32), look, [one.backend.size for one in of], [one.value for one in of],
                [one.low for one in of], [one.high for one in of],
            )
        )  # fmt: skip
    networks = f"{found[0].backend.network} over {found[0].other.network}"
    ends = [
        max((one for one in found if one.name == name), key=lambda one: one.backend.size) for name in names
    ]
    message = f"{networks}: " + "; ".join(
        f"{numbers.ratio(one.value)} with {view_model.where(one.backend)}" for one in ends
    )
    levels = [plots.Level("equal", 1.0)]
    title = f"busbw of {networks}, by message size"
    plot = plots.lines(ids, title, f"{message}.", series, levels, quantity="ratio")
    columns = (
        Column("collective"), Column("size", True), Column(found[0].backend.network, True),
        Column(found[0].other.network, True), Column("ratio", True), Column("interval", True),
    )  # fmt: skip
    rows = [
        (
            one.name, numbers.binary(one.backend.size), numbers.rate(one.backend.busbw),
            numbers.rate(one.other.busbw), numbers.ratio(one.value),
            numbers.interval(
                numbers.between(one.low, one.high, 3),
                min(one.backend.time.count, one.other.time.count), "batch",
            ),
        )
        for one in found
    ]  # fmt: skip
    return section(
        ids,
        "against",
        view_model.against(results),
        tag("figure", tag("figcaption", f"{message}."), plot),
        details("All ratios", table(ids, f"busbw of {networks}", columns, rows)),
    )


def _level(group: view_model.Group, line: Line, look: int) -> plots.Level:
    """Return where busbw ends: a line may carry several times busbw, and NCCL may use several lines."""
    most = group.best.busbw / group.best.ceiling_share if group.best.ceiling_share else line.ceiling
    what = "line" if abs(most - line.ceiling) < 0.01 * line.ceiling else "line, as busbw"
    return plots.Level(f"{numbers.shorten(group.network, 12)}’s {what}: {numbers.rate(most)}", most, look)


def _message(results: Results, group: view_model.Group) -> str:
    first, best = group.rows[0], group.best
    start = f"{view_model.role(results, group.network)}: "
    if len(group.rows) == 1:
        text = f"{start}{numbers.rate(best.busbw)} at {numbers.binary(best.size)}"
    else:
        text = f"{start}from {numbers.rate(first.busbw)} at {numbers.binary(first.size)} up to "
        text += f"{numbers.rate(best.busbw)} at {numbers.binary(best.size)}"
    if best.ceiling_share is not None:
        text += f", {numbers.share(best.ceiling_share)} of what the line can carry"
    return f"{text}."


def _row(row: Collective) -> tuple[str, ...]:
    return (
        numbers.binary(row.size), row.network, "in-place" if row.in_place else "out-of-place",
        f"{row.elements:,}", row.dtype, row.redop, str(row.root), numbers.time(row.time.median),
        numbers.interval(numbers.times(row.time.low, row.time.high), row.time.count, "batch"),
        numbers.rate(row.algbw), numbers.rate(row.busbw),
        numbers.interval(numbers.rates(row.busbw_low, row.busbw_high), row.time.count, "batch"),
        numbers.share(row.ceiling_share), "not checked" if row.wrong is None else f"{row.wrong:,}",
        f"{row.calls:,}", numbers.size(row.formula_bytes), _bytes(row.sockets_bytes), _bytes(row.interface_bytes),
        numbers.share(row.busy), numbers.share(row.throttled),
    )  # fmt: skip


def _bytes(by_interface: dict[str, int] | None) -> str:
    if by_interface is None:
        return numbers.NONE
    return ", ".join(f"{name} {numbers.size(count)}" for name, count in sorted(by_interface.items())) or "0 B"


def _lines(results: Results, ids: Ids) -> Html:
    columns = (
        Column("network"), Column("rate", True), Column("source"), Column("MTU", True), Column("IP"),
        Column("TCP can carry", True),
    )  # fmt: skip

    def row(line: Line) -> tuple[str, ...]:
        return (
            line.network, numbers.bits(line.rate_bits_per_s), rate_source(line), str(line.mtu),
            f"IPv{line.family}",
            f"{numbers.rate(line.ceiling)} ({numbers.share(line.ceiling * 8 / line.rate_bits_per_s)})"
            if line.rate_bits_per_s else numbers.rate(line.ceiling),
        )  # fmt: skip

    caption = "Line rates, and what TCP can carry in each direction after headers at this MTU"
    return table(ids, caption, columns, [row(line) for line in results.lines])
