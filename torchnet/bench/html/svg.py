"""Embed matplotlib's plots as SVG: text stays text in the page's font, colours are the style sheet's variables.

matplotlib does not support CSS variables: it draws with placeholder colours, which are replaced afterwards. The same
figures give the same bytes: the user's matplotlibrc is not read, and ids are salted hashes.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torchnet.ansi import clean
from torchnet.bench.html.markup import Html, Ids, tag
from torchnet.bench.html.style import COLOURS
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIX = "pip install matplotlib"

_NAMES = tuple(COLOURS)
_PROLOGUE = re.compile(r'.*?<svg [^>]*viewBox="([^"]+)"[^>]*>(.*)</svg>\s*', re.DOTALL)
_UNUSED = re.compile(r"<!--.*?-->|<style\b.*?</style>|<metadata>.*?</metadata>|<defs>\s*</defs>", re.DOTALL)
_PAINTED = re.compile("#0101([0-9a-f]{2})")
_FAMILY = re.compile(r" ?font-family: [^;\"]*;?")


def check() -> None:
    """Check before the measurement that a page can be written.

    Raises:
        UsageError: matplotlib is missing, or cannot be imported.
    """
    try:
        with matplotlib_quiet():
            import matplotlib.backends.backend_svg  # noqa: F401
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        text = "is not installed" if missing else f"cannot be imported: {clean(str(error))}"
        raise UsageError(f"--html needs matplotlib, which {text}", fix=FIX) from None


@contextmanager
def matplotlib_quiet() -> Iterator[None]:
    """Use matplotlib with its default settings and ours, without its messages about the font cache and missing
    fonts."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        import matplotlib

        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a glyph may be missing in its font; the page's has it
            matplotlib.rcdefaults()
            matplotlib.rcParams.update({"svg.fonttype": "none", "text.parse_math": False, "font.size": 12})
            yield
    finally:
        log.setLevel(level)


def paint(name: str) -> str:
    return f"#0101{_NAMES.index(name):02x}"


def svg(figure: Figure, ids: Ids, title: str, message: str, *, natural: bool = False) -> Html:
    """Return the plot as an element of the page. ``natural`` makes a point one pixel instead of filling the width."""
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
        raise AssertionError("matplotlib wrote an unexpected SVG")
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
    """Return one of matplotlib's tags as the page uses it: without a font, with colour variables, and only with ids in
    use."""
    text = _PAINTED.sub(lambda paint: f"var(--{_NAMES[int(paint[1], 16)]})", match[0])
    text = _FAMILY.sub("", text).replace("xlink:href", "href")
    return re.sub(r' id="[^"]*"', "", text) if text.startswith("<g ") else text
