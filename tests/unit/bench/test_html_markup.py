"""The benchmark's page: nobody's text is markup, the same in is the same out, and its colours can be read."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.bench_results import changed, healthy
from tests.unit.report_page import FINDING, SIZES, everything, read
from torchnet.bench.html import check, html, markup, style
from torchnet.bench.results import Lacking
from torchnet.errors import UsageError


@pytest.fixture(scope="module")
def full() -> str:
    return html(everything())


# --- Nobody's text is markup. ---


def test_hostile_text_is_text(full: str) -> None:
    """Names, reasons and the rest as an attacker would have them: the same elements, with that text within."""
    hostile = (
        "</title></style><script>alert(1)</script><b a=\"x\" b='y'>&lt;--> fill: #010105 $x_1$ \u202e\x1b[31m"
    )
    results = everything()
    assert results.setup
    renamed = changed(
        results,
        nodes=tuple(
            one.model_copy(update={"name": hostile + str(one.node), "cpu": hostile}) for one in results.nodes
        ),
        findings=(FINDING.model_copy(update={"text": hostile, "fix": hostile, "where": (hostile,)}),),
        lacks=(Lacking(what=hostile, why=hostile),),
        reason=hostile,
        run=hostile,
        setup=results.setup.model_copy(
            update={"environment": {hostile: hostile}, "command": (hostile,), "device": hostile}
        ),
        collectives=tuple(row.model_copy(update={"dtype": hostile}) for row in results.collectives),
    )
    page = read(html(renamed))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in read(full).tags]
    assert "fill: #010105 $x_1$ \\u202e" in page.text("main")
    assert "\u202e" not in "".join("".join(text) for text in page.texts)


def test_a_network_may_have_any_name() -> None:
    """Not so with matplotlib: an underscore may hide a line from its legend, and dollars make mathematics."""
    results = healthy(2, sizes=SIZES)
    assert results.setup
    for name in ("_net", "$a_1$", "日本"):
        rows = tuple(row.model_copy(update={"network": name}) for row in results.collectives)
        setup = results.setup.model_copy(update={"interface": name})
        drawn = re.findall("<svg.*?</svg>", html(changed(results, setup=setup, collectives=rows)), re.DOTALL)
        assert f"{name} (backend)" in "".join(read(drawn[0]).text("text"))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@example("<b>&amp;", "\"><b x='&amp;")
@given(TEXT, TEXT)
def test_any_text_comes_out_as_it_went_in(content: str, value: str) -> None:
    made = markup.tag("p", content, aria_label=value)
    page = read(made)
    assert [tag for tag, _ in page.tags] == ["p"]
    assert page.text("p") == markup.plain(content)
    assert page.tags[0][1] == {"aria-label": markup.plain(value).replace("\n", " ")}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TEXT.filter(str.strip), min_size=3, max_size=3))
def test_any_names_of_nodes_leave_the_page_well_formed(names: list[str]) -> None:
    results = healthy(3, sizes=SIZES[:1])
    nodes = tuple(
        one.model_copy(update={"name": name}) for one, name in zip(results.nodes, names, strict=True)
    )
    page = read(html(changed(results, nodes=nodes)))
    heads = [text for _, attributes, text in page.all("th") if attributes["scope"] == "row"]
    assert [markup.plain(name) in heads for name in names] == [True] * 3


# --- The same in, the same out. ---


def test_the_same_results_give_the_same_bytes(full: str) -> None:
    import matplotlib

    with matplotlib.rc_context({"axes.linewidth": 9, "axes.titlesize": 30, "svg.fonttype": "path"}):
        assert html(everything()) == full
        assert matplotlib.rcParams["axes.linewidth"] == 9


def test_without_matplotlib_the_fix_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    check()
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="matplotlib, which is not installed") as raised:
        check()
    assert raised.value.fix == "pip install matplotlib"


# --- Colours. ---


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def modes() -> list[dict[str, str]]:
    """The colours as the style sheet gives them: light ones, and dark ones over them."""
    blocks = re.findall(r":root\{([^}]*)\}", style.css())
    light, dark = (dict(re.findall(r"--([a-z0-9-]+):(#[0-9a-f]{6})", block)) for block in blocks)
    assert light.keys() == dark.keys() == style.COLOURS.keys()
    return [light, dark]


TEXTS = [
    *(
        (name, ground)
        for name in ("text", "soft", "link", "good", "bad", "warn")
        for ground in ("page", "panel")
    ),
    *((f"on-heat-{step}", f"heat-{step}") for step in range(style.HEAT)),
]
LINES = [(name, "page") for name in ("ceiling", "soft", *(f"line-{look}" for look in range(style.SERIES)))]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("pair", "least"), [(pair, 4.5) for pair in TEXTS] + [(pair, 3.0) for pair in LINES], ids=str
)
def test_contrast(mode: int, pair: tuple[str, str], least: float) -> None:
    colours = modes()[mode]
    assert contrast(colours[pair[0]], colours[pair[1]]) >= least
