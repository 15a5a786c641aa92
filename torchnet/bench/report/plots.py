"""Plots as SVG text, with matplotlib: text stays text in the page's font, and colours are the style sheet's variables.

matplotlib knows no variables: it draws with colours that stand for them, and what it wrote is changed afterwards. The
same figures give the same bytes: nothing is read from the user's matplotlibrc, and ids are hashes with a salt.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchnet.bench.report.markup import Html, Ids, tag
from torchnet.bench.report.numbers import binary, scaled, share
from torchnet.bench.report.style import COLOURS, HEAT, SERIES
from torchnet.errors import UsageError
from torchnet.ui.sanitize import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIX = "pip install 'torchnet-launch[report]'"

_NAMES = tuple(COLOURS)
_MARKERS = "osD^vPX"
_STYLES = ("-", "--", "-.", ":")
_STEPS = (0.25, 0.5, 0.75, 0.9)  # of the fastest direction: where the heat map's next step begins
_WIDE, _NARROW = (760, 300), (340, 250)  # points, which the page scales
_CELL = 46  # points; a number of four digits fits

_PROLOGUE = re.compile(r'.*?<svg [^>]*viewBox="([^"]+)"[^>]*>(.*)</svg>\s*', re.DOTALL)
_UNUSED = re.compile(r"<!--.*?-->|<style\b.*?</style>|<metadata>.*?</metadata>|<defs>\s*</defs>", re.DOTALL)
_PAINTED = re.compile("#0101([0-9a-f]{2})")
_FAMILY = re.compile(r" ?font-family: [^;\"]*;?")


@dataclass(frozen=True)
class Series:
    """One line. ``low`` and ``high`` are its band's edges; ``look`` counts colours, markers and styles."""

    label: str
    look: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Level:
    """A line from left to right."""

    label: str
    value: float
    look: int = 0


def check() -> None:
    """Before anything is measured: can a page be made?

    Raises:
        UsageError: matplotlib is missing, or cannot be imported.
    """
    try:
        with _matplotlib():
            import matplotlib.backends.backend_svg  # noqa: F401
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        text = "is not installed" if missing else f"cannot be imported: {clean(str(error))}"
        raise UsageError(f"--html draws its plots with matplotlib, which {text}", fix=FIX) from None


def lines(
    ids: Ids,
    title: str,
    message: str,
    series: Sequence[Series],
    levels: Sequence[Level],
    *,
    quantity: str,
    unit: str = "",
) -> Html:
    """Lines over the messages' sizes, drawn twice: for wide windows and for narrow ones.

    ``unit`` gets an SI prefix; without one the values are drawn as they are. ``message`` says what the plot shows.
    """
    drawn = []
    for kind, size in (("wide", _WIDE), ("narrow", _NARROW)):
        narrow = kind == "narrow"
        columns = (1 if len(series) + len(levels) <= 4 else 2) if narrow else 4
        rows = -(-(len(series) + len(levels)) // columns)
        with _matplotlib():
            legend = 18 * rows + 26
            figure, axes = _axes(size[0], size[1] + legend, left=46, right=28, top=legend, bottom=40)
            _scale(axes, series, levels, quantity, unit, narrow)
            handles = [_line(axes, one) for one in series]
            for level in levels:
                style = (0, (6, 3)) if not level.look else (0, (1, 2))
                handles.append(
                    axes.axhline(
                        level.value, color=_paint("ceiling"), linestyle=style, linewidth=1.6, zorder=2
                    )
                )
            labels = [clean(one.label) for one in series] + [clean(level.label) for level in levels]
            axes.legend(
                handles, labels, loc="upper left", bbox_to_anchor=(0.003, 1.0), bbox_transform=figure.transFigure,
                ncols=columns, frameon=False, borderaxespad=0, borderpad=0, labelspacing=0.35, handlelength=2.4,
                columnspacing=1.6, labelcolor=_paint("text"),
            )  # fmt: skip
            drawn.append(tag("div", _svg(figure, ids, title, message), class_=kind))
    return Html("".join(drawn))


def heat(
    ids: Ids, title: str, message: str, names: Sequence[str], rates: dict[tuple[int, int], float]
) -> Html:
    """Who reaches whom how fast: a row for each source, a column for each target, by their places in ``names``.

    The slowest has a frame. It is as large as it must be to be read; the page lets it scroll.
    """
    most = max(rates.values())
    divisor, _ = scaled(most)
    slowest = min(rates, key=lambda pair: (rates[pair], pair))
    count, left, top = len(names), 14 + int(7.5 * max(len(name) for name in names)), 40
    with _matplotlib():
        from matplotlib.patches import Rectangle

        size = (left + _CELL * count + 6, top + _CELL * count + 6)
        figure, axes = _axes(*size, left=left, right=6, top=top, bottom=6)
        axes.set(xlim=(0, count), ylim=(count, 0))
        axes.set_axis_off()
        for row, name in enumerate(names):
            axes.text(-0.15, row + 0.5, clean(name), ha="right", va="center", color=_paint("text"))
            axes.text(row + 0.5, -0.15, str(row), ha="center", va="bottom", color=_paint("text"))
        axes.text(0, -0.55, "to", ha="left", va="bottom", color=_paint("soft"))
        axes.text(-0.15, -0.15, "from", ha="right", va="bottom", color=_paint("soft"))
        for row in range(count):
            for column in range(count):
                here = (row, column)
                if here not in rates:
                    if row != column:
                        axes.text(
                            column + 0.5, row + 0.5, "–", ha="center", va="center", color=_paint("soft")
                        )
                    continue
                step, worst = heat_step(rates[here] / most if most else 1.0), here == slowest
                edge, width, above = ("text", 3, 3) if worst else ("page", 2, 1)
                axes.add_patch(
                    Rectangle(
                        (column, row), 1, 1, facecolor=_paint(f"heat-{step}"), edgecolor=_paint(edge),
                        linewidth=width, zorder=above, clip_on=False,
                    )
                )  # fmt: skip
                axes.text(
                    column + 0.5, row + 0.5, f"{rates[here] / divisor:.4g}", ha="center", va="center",
                    color=_paint(f"on-heat-{step}"), fontweight="bold" if worst else "normal", zorder=4,
                )  # fmt: skip
        return _svg(figure, ids, title, message, natural=True)


def heat_step(ratio: float) -> int:
    """The step of a rate that is ``ratio`` of the fastest."""
    return sum(ratio >= edge for edge in _STEPS)


def heat_key() -> Html:
    """What the heat map's colours stand for."""
    edges = (0.0, *_STEPS)
    words = [f"less than {share(_STEPS[0])}"] + [f"{share(edge)} or more" for edge in edges[1:]]
    items = [
        tag("li", tag("span", style=f"background:var(--heat-{step})", aria_hidden="true"), words[step])
        for step in range(HEAT)
    ]
    return tag("ul", items, class_="key", aria_label="Colours: share of the fastest direction")


@contextmanager
def _matplotlib() -> Iterator[None]:
    """matplotlib with its own defaults and ours, silent: it tells about its font cache and fonts that it lacks."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        import matplotlib

        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter that its font lacks is no matter: the page's has it
            matplotlib.rcdefaults()
            matplotlib.rcParams.update({"svg.fonttype": "none", "text.parse_math": False, "font.size": 12})
            yield
    finally:
        log.setLevel(level)


def _paint(name: str) -> str:
    return f"#0101{_NAMES.index(name):02x}"


def _axes(width: int, height: int, *, left: int, right: int, top: int, bottom: int) -> tuple[Figure, Axes]:
    """Axes with margins in points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), frameon=False)
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure, figure.add_axes(box, frameon=True, facecolor="none")


def _scale(
    axes: Axes, series: Sequence[Series], levels: Sequence[Level], quantity: str, unit: str, narrow: bool
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    sizes = sorted({x for one in series for x in one.x})
    most = max([value for one in series for value in one.high] + [one.value for one in levels]) or 1.0
    divisor, prefix = scaled(most) if unit else (1.0, "")
    axes.set_xscale("log", base=2)
    axes.set(xlim=(sizes[0] / 1.5, sizes[-1] * 1.5), ylim=(0, most * 1.06))
    axes.xaxis.set_major_locator(FixedLocator(_chosen(sizes, 4 if narrow else 10)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: binary(round(value))))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / divisor:.4g}"))
    axes.tick_params(length=0, pad=6, labelcolor=_paint("soft"))
    axes.tick_params(axis="x", length=4, color=_paint("soft"))
    axes.grid(axis="y", color=_paint("grid"), linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel("size of the message", color=_paint("soft"), labelpad=4)
    label = f"{quantity}, {prefix}{unit}" if unit else quantity
    axes.annotate(
        label, (0, 1), xycoords=("figure fraction", "axes fraction"), xytext=(2, 9), color=_paint("soft"),
        textcoords="offset points", annotation_clip=False,
    )  # fmt: skip
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_paint("soft"))


def _line(axes: Axes, one: Series) -> Any:
    colour = _paint(f"line-{one.look % SERIES}")
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
    """At most so many of the sizes, evenly, the last one among them."""
    step = max(1, -(-len(sizes) // most))
    return list(sizes[::-1][::step])[::-1]


def _svg(figure: Figure, ids: Ids, title: str, message: str, *, natural: bool = False) -> Html:
    """The drawing as an element of the page. ``natural``: a point is a pixel, instead of as wide as there is room."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    heading, description = ids.new("plot-title"), ids.new("plot-text")
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": heading}):
        FigureCanvasSVG(figure)
        figure.savefig(written, format="svg", metadata=nothing)
    match = _PROLOGUE.fullmatch(written.getvalue())
    if match is None:
        raise AssertionError("matplotlib wrote no SVG that can be read")
    box = match[1]
    drawing = re.sub("<[^>]*>", _element, _UNUSED.sub("", match[2]))
    width, height = box.split()[2:] if natural else (None, None)
    return tag(
        "svg",
        tag("title", title, id=heading),
        tag("desc", message, id=description),
        Html(re.sub("[ \n]+", " ", drawing)),
        role="img",
        aria_labelledby=f"{heading} {description}",
        viewBox=box,
        width=width,
        height=height,
    )


def _element(match: re.Match[str]) -> str:
    """One of matplotlib's tags as the page has it: no font of its own, variables for colours, no ids but those used."""
    text = _PAINTED.sub(lambda paint: f"var(--{_NAMES[int(paint[1], 16)]})", match[0])
    text = _FAMILY.sub("", text).replace("xlink:href", "href")
    return re.sub(r' id="[^"]*"', "", text) if text.startswith("<g ") else text
