"""matplotlib's drawings as a page's SVG: text stays text in the page's font, colours are the style sheet's variables.

matplotlib knows no variables: it draws with colours that stand for them, and what it wrote is changed afterwards. The
same figures give the same bytes: nothing is read from the user's matplotlibrc, and ids are hashes with a salt.
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
    """Before anything is measured: can a page be made?

    Raises:
        UsageError: matplotlib is missing, or cannot be imported.
    """
    try:
        with matplotlib_quiet():
            import matplotlib.backends.backend_svg  # noqa: F401
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        text = "is not installed" if missing else f"cannot be imported: {clean(str(error))}"
        raise UsageError(f"--html draws its plots with matplotlib, which {text}", fix=FIX) from None


@contextmanager
def matplotlib_quiet() -> Iterator[None]:
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


def paint(name: str) -> str:
    return f"#0101{_NAMES.index(name):02x}"


def svg(figure: Figure, ids: Ids, title: str, message: str, *, natural: bool = False) -> Html:
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
