"""The benchmark's page: what it says, that it is well-formed and needs nothing else, that nobody's text is markup."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.bench_results import changed, healthy
from torchnet.bench.report import check, html, markup, style
from torchnet.bench.results import Figure, Finding, Lacking, Results, Trial, Tuning
from torchnet.errors import UsageError

VOID = {"meta", "br"}
SIZES = (1 << 10, 1 << 16, 1 << 22)
FINDING = Finding(kind="slow-pair", text="node-0 is slow", fix="torchnet bench --pairs", where=("node-0",))


@dataclass
class Page(HTMLParser):
    """Elements in their order, with their attributes and the text within; what is not closed properly is an error."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)
    open: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), attrs
        self.tags.append((tag, dict(attrs)))
        self.texts.append([])
        if tag not in VOID:
            self.open.append(len(self.tags) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.tags[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for number in self.open:
            self.texts[number].append(data)

    def all(self, *names: str) -> list[tuple[str, dict[str, str | None], str]]:
        return [
            (tag, attributes, "".join(text))
            for (tag, attributes), text in zip(self.tags, self.texts, strict=True)
            if tag in names
        ]

    def text(self, name: str) -> str:
        return "".join(text for _, _, text in self.all(name))


def read(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def everything() -> Results:
    """Results that fill each section."""
    once = Figure(median=2.0, low=1.9, high=2.1, count=9)
    trial = Trial(name="hook", settings={"a": "b"}, steps_per_s=once, ratio=once, numerics=True)
    return changed(
        healthy(4, compare="eth0", sizes=SIZES, collectives=("all_reduce", "broadcast")),
        findings=(FINDING,),
        lacks=(Lacking(what="reduce over x", why="it has none"),),
        tuning=Tuning(trials=(trial,), chosen={"a": "b"}, block="[tool.torchnet]\na = 1\n"),
        complete=False,
        reason="node-2 was lost",
    )


@pytest.fixture(scope="module")
def full() -> str:
    return html(everything())


@pytest.fixture(scope="module", params=["everything", "two", "nothing"])
def page(request: pytest.FixtureRequest, full: str) -> Page:
    empty = Results(torchnet="0", date="2026-01-02T03:04:05Z", setup=None, complete=False, reason="no memory")
    return read(
        {"everything": full, "two": html(healthy(2, sizes=SIZES)), "nothing": html(empty)}[request.param]
    )


def test_the_page_can_be_walked(page: Page) -> None:
    """What assistive software goes by: language, title, landmarks, headings without gaps, a link past the links."""
    assert page.all("html")[0][1]["lang"] == "en"
    assert page.text("title")
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1, landmark
    levels = [int(tag[1]) for tag, _, _ in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.all("a")[0][1]["href"] == "#main"


def test_ids_are_unique_and_each_reference_has_its_own(page: Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    named = []
    for _, attributes in page.tags:
        named += (attributes.get("aria-labelledby") or "").split()
        named += re.findall(r"url\(#([^)]*)\)", " ".join(value or "" for value in attributes.values()))
        named += [(attributes.get("href") or "#main").removeprefix("#")]
    assert set(named) <= set(ids)


def test_tables_and_plots_say_what_they_are(page: Page) -> None:
    assert len(page.all("caption")) == len(page.all("table")) == len(page.all("thead"))
    assert all(
        text.strip() for _, _, text in page.all("caption", "figcaption", "summary", "desc", "h2", "h3")
    )
    assert all(attributes.get("scope") in ("row", "col") for _, attributes, _ in page.all("th"))
    for _, attributes, _ in page.all("svg"):
        assert attributes["role"] == "img"
        assert len((attributes["aria-labelledby"] or "").split()) == 2
    for _, attributes in page.tags:
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes["aria-labelledby"]


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert page.all("script", "link", "img", "iframe", "object", "image") == []
    for tag, attributes in page.tags:
        assert not {"src", "srcset", "action", "data"} & attributes.keys(), tag
        assert (attributes.get("href") or "#").startswith("#"), attributes
        assert not re.search(r"url\((?!#)|://", " ".join(value or "" for value in attributes.values()))
    assert not re.search(r"url\(|@import|://", page.text("style"))
    policy = [one for _, one, _ in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_a_tuning_is_compared_with_torch_s_own_settings(full: str) -> None:
    assert "Faster than torch’s own settings: put this into pyproject.toml." in read(full).text("main")
    tuning = everything().tuning
    assert tuning is not None
    nothing = changed(everything(), tuning=tuning.model_copy(update={"chosen": {}}))
    text = read(html(nothing)).text("main")
    assert "Nothing that was tried is reliably faster than torch’s own settings." in text


def test_lists_without_bullets_are_lists_all_the_same(full: str) -> None:
    """Safari takes list-style: none for a wish that nothing be said of a list."""
    assert full.count("list-style:none") >= 3
    lists = read(full).all("ul", "ol")
    assert len(lists) >= 3
    assert all(attributes.get("role") == "list" for _, attributes, _ in lists)


def test_long_labels_make_fewer_columns_of_a_legend() -> None:
    """Each entry ends within its plot, at 7.5 points a letter."""
    results = healthy(
        2, compare="enp129s0f0np0v1", sizes=SIZES, collectives=("reduce_scatter", "all_to_all", "send_recv")
    )
    rows = tuple(
        one.model_copy(update={"dtype": dtype, "redop": redop})
        for dtype, redop in (("float32", "sum"), ("bfloat16", "prod"))
        for one in results.collectives
    )
    text = html(changed(results, collectives=rows))
    columns = []
    for width, drawing in re.findall(r'<svg [^>]*viewBox="0 0 ([0-9.]+) [^>]*>(.*?)</svg>', text, re.DOTALL):
        entries = re.findall(r'<text [^>]*anchor: start[^>]* x="([0-9.]+)"[^>]*>([^<]*)<', drawing)
        columns.append(len({left for left, _ in entries if float(left) > 10}))  # there the axis is named
        assert all(float(left) + 7.5 * len(label) <= float(width) for left, label in entries), entries
    assert {1, 2} <= set(columns)
    # In the plot of the ratios, where a label names all that differs.
    assert "reduce_scatter, bfloat16, prod<" in text


def test_plots_take_font_and_colours_from_the_page(full: str) -> None:
    drawn = "".join(re.findall("<svg.*?</svg>", full, re.DOTALL))
    assert "font-family" not in drawn
    assert "xlink" not in drawn
    assert not re.search("#[0-9a-f]{6}", drawn)
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", full))
    assert used <= set(style.COLOURS) | {"tone"}
    assert "<text" in drawn  # and no outlines of letters


# --- What it says. ---


def test_the_verdict_comes_first(full: str) -> None:
    first = read(full).all("h2")[0][2]
    assert first == "! Incomplete, 1 finding"
    text = read(full).text("main")
    assert text.index("node-2 was lost") < text.index("node-0 is slow") < text.index("Best bus bandwidth")
    assert text.index("Best bus bandwidth") < text.index("Raw TCP, each direction")
    assert "Next: torchnet bench --pairs" in text


def test_nothing_found_is_said() -> None:
    page = read(html(healthy(2, sizes=SIZES)))
    assert page.all("h2")[0][2] == "✓ Nothing found"
    assert page.text("title").startswith("torchnet bench: nothing found")
    assert "Nothing that was measured is out of order." in page.text("main")
    assert "ended early" not in page.text("main")


def test_the_key_figures_are_the_results() -> None:
    results = healthy(2, sizes=SIZES)
    best = max(results.collectives, key=lambda row: row.busbw)
    values = [
        text for _, attributes, text in read(html(results)).all("dd") if attributes.get("class") == "value"
    ]
    assert values[0].replace("\u00a0", " ") == f"{best.busbw / 1e6:.1f} MB/s"
    assert best.ceiling_share is not None
    assert values[1].replace("\u00a0", " ") == f"{int(best.ceiling_share * 1e4) / 100:.2f} %"


def test_the_ratio_is_the_backends_busbw_over_the_primarys() -> None:
    results = healthy(2, sizes=SIZES, compare="eth0", noise=0.0, wander=0.0)
    slower = [
        row.model_copy(update={name: getattr(row, name) / 4 for name in ("busbw", "busbw_low", "busbw_high")})
        if row.network == "eth0"
        else row
        for row in results.collectives
    ]
    text = read(html(changed(results, collectives=tuple(slower)))).text("main").replace("\u00a0", " ")
    assert "net1 over eth0: 4 × with all_reduce of 4 MiB." in text
    assert "Backend against primary4 ×" in text
    assert "Backend against primary" not in html(healthy(2, sizes=SIZES))


def test_the_matrix_has_each_direction_and_frames_the_slowest() -> None:
    results = healthy(4, sizes=SIZES, path=lambda a, b: 0.1 if (a, b) == (2, 1) else 1.0)
    text = html(results)
    drawn = re.findall("<svg.*?</svg>", text, re.DOTALL)[-1]
    rates = {(row.source, row.target): row.rate.median for row in results.tcp if not row.both}
    shown = [label for _, _, label in read(drawn).all("text")]
    for rate in rates.values():
        assert f"{rate / 1e6:.4g}" in shown
    bold = re.findall(r'<text style="font-weight: 700[^>]*>([^<]*)<', drawn)
    assert bold == [f"{rates[2, 1] / 1e6:.4g}"]
    assert drawn.count("stroke: var(--text)") == 1
    assert "the slowest is node-2 → node-1" in read(drawn).text("desc").replace("\u00a0", " ")


def test_long_names_are_told_apart_in_the_matrix() -> None:
    results = healthy(3, sizes=SIZES[:1])
    nodes = tuple(one.model_copy(update={"name": f"{'worker-' * 8}{one.node}"}) for one in results.nodes)
    labels = [label for _, _, label in read(html(changed(results, nodes=nodes))).all("text")]
    assert [f"worker-…worker-{number}\u2002{number}" in labels for number in range(3)] == [True] * 3


def test_two_nodes_have_a_table_and_no_matrix() -> None:
    page = read(html(healthy(2, sizes=SIZES)))
    assert len(page.all("svg")) == 2  # one plot, for wide windows and for narrow ones
    assert "Raw TCP, each direction" in page.text("caption")


def test_a_line_that_is_not_known_is_not_drawn() -> None:
    assert "net1’s line" in html(healthy(2, sizes=SIZES))
    unknown = html(healthy(2, sizes=SIZES, rate=None))
    assert "’s line" not in unknown
    assert "Percent of the line" not in unknown


def test_figures_of_nothing_are_drawn() -> None:
    """A path that is dead, one size alone."""
    results = healthy(3, sizes=(1 << 10,))
    nothing = Figure(median=0.0, low=0.0, high=0.0, count=1)
    none = {"busbw": 0.0, "busbw_low": 0.0, "busbw_high": 0.0}
    page = read(
        html(
            changed(
                results,
                tcp=tuple(row.model_copy(update={"rate": nothing, "segments": 0}) for row in results.tcp),
                collectives=tuple(row.model_copy(update=none) for row in results.collectives),
                lines=(),
            )
        )
    )
    labels = [label for _, _, label in page.all("text")]
    assert "0" in labels
    assert not [label for label in labels if label[0] in "-−"]


def test_the_command_is_quoted_for_a_shell() -> None:
    results = healthy(2, sizes=SIZES)
    assert results.setup
    setup = results.setup.model_copy(update={"command": ("torchnet", "bench", "--html", "a b&c.html")})
    page = read(html(changed(results, setup=setup)))
    assert page.text("pre") == "torchnet bench --html 'a b&c.html'"


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
    assert raised.value.fix == "pip install 'torchnet-launch[report]'"


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
