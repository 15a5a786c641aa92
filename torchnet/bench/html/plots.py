"""The plots of a report: lines over message sizes, and the pairs of nodes as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchnet.ansi import cells, clean
from torchnet.bench.html.markup import Html, Ids, tag
from torchnet.bench.html.numbers import binary, share
from torchnet.bench.html.style import HEAT, SERIES
from torchnet.bench.html.svg import matplotlib_quiet, paint, svg
from torchnet.units import si_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX"
_STYLES = ("-", "--", "-.", ":")
_STEPS = (0.25, 0.5, 0.75, 0.9)  # shares of the fastest direction at which the heat map's next step begins
_WIDE, _NARROW = (760, 300), (340, 250)  # points; the page scales them
_CELL = 46  # points; holds a number of four digits
# Points: the widest letter; a legend's marker before its label; the gap between columns.
_LETTER, _SIGN, _GAP = 7.5, 42, 20


@dataclass(frozen=True)
class PlotSeries:
    """One line of a plot. ``low`` and ``high`` are the edges of its band; ``look`` numbers colours, markers and
    styles."""

    label: str
    look: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Level:
    """A horizontal line across the plot."""

    label: str
    value: float
    look: int = 0


def lines(
    ids: Ids,
    title: str,
    message: str,
    series: Sequence[PlotSeries],
    levels: Sequence[Level],
    *,
    quantity: str,
    unit: str = "",
) -> Html:
    """Plot lines over message sizes, once for wide windows and once for narrow ones.

    ``unit`` gets an SI prefix; without a unit, values are plotted unscaled. ``message`` describes what the plot shows.
    """
    drawn = []
    labels = [clean(label) for label in [one.label for one in series] + [one.label for one in levels]]
    for kind, size in (("wide", _WIDE), ("narrow", _NARROW)):
        narrow = kind == "narrow"
        columns = _columns(labels, size[0])
        rows = -(-len(labels) // columns)
        with matplotlib_quiet():
            legend = 18 * rows + 30
            height = size[1] + legend
            figure, axes = _axes(size[0], height, left=46, right=28, top=legend, bottom=40)
            _scale(axes, series, levels, quantity, unit, narrow)
            handles = [_line(axes, one) for one in series]
            for level in levels:
                style = (0, (6, 3)) if not level.look else (0, (1, 2))
                handles.append(
                    axes.axhline(
                        level.value, color=paint("ceiling"), linestyle=style, linewidth=1.6, zorder=2
                    )
                )
            axes.legend(
                handles, labels, loc="upper left", bbox_to_anchor=(0.003, 1 - 4 / height),
                bbox_transform=figure.transFigure, ncols=columns, frameon=False, borderaxespad=0, borderpad=0,
                labelspacing=0.35, handlelength=2.4, columnspacing=1.6, labelcolor=paint("text"),
            )  # fmt: skip
            drawn.append(tag("div", svg(figure, ids, title, message), class_=kind))
    return Html("".join(drawn))


def _columns(labels: Sequence[str], width: int) -> int:
    """Return the number of columns of a legend: as many as fit with the widest label, and no more than there are
    entries."""
    column = _SIGN + _LETTER * max(map(cells, labels)) + _GAP
    return max(1, min(4, len(labels), int((width + _GAP) / column)))


def heat(
    ids: Ids, title: str, message: str, names: Sequence[str], rates: dict[tuple[int, int], float]
) -> Html:
    """Plot the rate of each pair of nodes: a row for each source, a column for each target, by their index in
    ``names``.

    The slowest pair has a frame. The plot is as large as it must be to be readable; the page lets it scroll.
    """
    most = max(rates.values())
    divisor, _ = si_scale(most)
    slowest = min(rates, key=lambda pair: (rates[pair], pair))
    count, left, top = len(names), 14 + int(7.5 * max(len(name) for name in names)), 40
    with matplotlib_quiet():
        from matplotlib.patches import Rectangle

        size = (left + _CELL * count + 6, top + _CELL * count + 6)
        figure, axes = _axes(*size, left=left, right=6, top=top, bottom=6)
        axes.set(xlim=(0, count), ylim=(count, 0))
        axes.set_axis_off()
        for row, name in enumerate(names):
            axes.text(-0.15, row + 0.5, clean(name), ha="right", va="center", color=paint("text"))
            axes.text(row + 0.5, -0.15, str(row), ha="center", va="bottom", color=paint("text"))
        axes.text(0, -0.55, "to", ha="left", va="bottom", color=paint("soft"))
        axes.text(-0.15, -0.15, "from", ha="right", va="bottom", color=paint("soft"))
        for row in range(count):
            for column in range(count):
                here = (row, column)
                if here not in rates:
                    if row != column:
                        axes.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color=paint("soft"))
                    continue
                step, worst = heat_step(rates[here] / most if most else 1.0), here == slowest
                edge, width, above = ("text", 3, 3) if worst else ("page", 2, 1)
                axes.add_patch(
                    Rectangle(
                        (column, row), 1, 1, facecolor=paint(f"heat-{step}"), edgecolor=paint(edge),
                        linewidth=width, zorder=above, clip_on=False,
                    )
                )  # fmt: skip
                axes.text(
                    column + 0.5, row + 0.5, f"{rates[here] / divisor:.4g}", ha="center", va="center",
                    color=paint(f"on-heat-{step}"), fontweight="bold" if worst else "normal", zorder=4,
                )  # fmt: skip
        return svg(figure, ids, title, message, natural=True)


def heat_step(ratio: float) -> int:
    """Return the colour step for a rate that is ``ratio`` of the fastest."""
    return sum(ratio >= edge for edge in _STEPS)


def heat_key() -> Html:
    """Return the legend of the heat map's colours."""
    edges = (0.0, *_STEPS)
    words = [f"less than {share(_STEPS[0])}"] + [f"{share(edge)} or more" for edge in edges[1:]]
    items = [
        tag("li", tag("span", style=f"background:var(--heat-{step})", aria_hidden="true"), words[step])
        for step in range(HEAT)
    ]
    return tag("ul", items, class_="key", role="list", aria_label="Colours: share of the fastest direction")


def _axes(width: int, height: int, *, left: int, right: int, top: int, bottom: int) -> tuple[Figure, Axes]:
    """Return a figure with axes; margins are in points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), frameon=False)
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure, figure.add_axes(box, frameon=True, facecolor="none")


def _scale(
    axes: Axes, series: Sequence[PlotSeries], levels: Sequence[Level], quantity: str, unit: str, narrow: bool
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    sizes = sorted({x for one in series for x in one.x})
    most = max([value for one in series for value in one.high] + [one.value for one in levels]) or 1.0
    divisor, prefix = si_scale(most) if unit else (1.0, "")
    axes.set_xscale("log", base=2)
    axes.set(xlim=(sizes[0] / 1.5, sizes[-1] * 1.5), ylim=(0, most * 1.06))
    axes.xaxis.set_major_locator(FixedLocator(_chosen(sizes, 4 if narrow else 10)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: binary(round(value))))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / divisor:.4g}"))
    axes.tick_params(length=0, pad=6, labelcolor=paint("soft"))
    axes.tick_params(axis="x", length=4, color=paint("soft"))
    axes.grid(axis="y", color=paint("grid"), linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel("message size", color=paint("soft"), labelpad=4)
    label = f"{quantity}, {prefix}{unit}" if unit else quantity
    axes.annotate(
        label, (0, 1), xycoords=("figure fraction", "axes fraction"), xytext=(2, 9), color=paint("soft"),
        textcoords="offset points", annotation_clip=False,
    )  # fmt: skip
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(paint("soft"))


def _line(axes: Axes, one: PlotSeries) -> Any:
    colour = paint(f"line-{one.look % SERIES}")
    axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.22, linewidth=0, zorder=2)
    axes.vlines(one.x, one.low, one.high, color=colour, linewidth=1.4, zorder=3)
    style = _STYLES[one.look % len(_STYLES)]
    marker = _MARKERS[one.look % len(_MARKERS)]
    drawn = axes.plot(
        one.x, one.y, color=colour, linestyle=style, linewidth=2, marker=marker, markersize=5.5, zorder=4,
        clip_on=False,
    )  # fmt: skip
    return drawn[0]


def _chosen(sizes: Sequence[float], most: int) -> list[float]:
    """Choose up to ``most`` of the sizes, evenly spaced, including the last."""
    step = max(1, -(-len(sizes) // most))
    return list(sizes[::-1][::step])[::-1]
