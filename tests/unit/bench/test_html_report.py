"""The benchmark's page: what it says, that it is well-formed and needs nothing else."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from tests.unit.bench_results import changed, healthy
from tests.unit.report_page import FINDING, SIZES, Page, everything, read
from torchnet.bench.html import html, style
from torchnet.bench.results import Figure, Lacking, Results
from torchnet.bench.summary import FINDINGS, NO_FINDINGS, render


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


def test_a_plot_s_ceiling_is_where_busbw_ends() -> None:
    """Four ranks of a node send to all four of the other one: its line carries more than one rank's busbw says."""
    for name, words in (("all_to_all", "net1’s line, as busbw: 5"), ("all_reduce", "net1’s line: 12")):
        results = healthy(2, per_node=4, collectives=(name,), sizes=SIZES)
        assert words in html(results)


def test_how_a_newer_torchnet_knows_a_line_is_told_in_its_word() -> None:
    results = healthy(2, sizes=SIZES)
    lines = tuple(one.model_copy(update={"known": "<measured>"}) for one in results.lines)
    assert "&lt;measured&gt;" in html(changed(results, lines=lines))


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
    text = read(full).text("main")
    assert text.index("node-2 was lost") < text.index("node-0 is slow") < text.index("Best bus bandwidth")
    assert text.index("Best bus bandwidth") < text.index("Raw TCP, each direction")


def verdict(results: Results) -> tuple[str, str, str]:
    """(the heading, how it looks, what stands below)."""
    page = read(html(results))
    (box,) = [one for one in page.all("div") if (one[1].get("class") or "").startswith("verdict")]
    assert page.all("title")[0][2] == f"torchnet bench: {page.all('h2')[0][2][2:].lower()}"
    return page.all("h2")[0][2], (box[1]["class"] or "").removeprefix("verdict "), box[2]


UNJUDGED = Lacking(what=FINDINGS, why="internal error: KeyError: 'net1'")


@pytest.mark.parametrize(
    ("fields", "sign", "tone"),
    [
        ({}, "✓", "good"),
        ({"lacks": (UNJUDGED,)}, "!", "warn"),
        ({"lacks": (UNJUDGED,), "findings": (FINDING,)}, "✗", "bad"),
        ({"collectives": (), "tcp": ()}, "!", "warn"),
        ({"complete": False, "reason": "no time"}, "!", "warn"),
        ({"complete": False, "reason": "no time", "collectives": (), "tcp": ()}, "!", "warn"),
    ],
    ids=str,
)
def test_that_nothing_is_wrong_is_said_only_where_it_is_known(
    fields: dict[str, Any], sign: str, tone: str
) -> None:
    """And the screen says it at the same time."""
    results = changed(healthy(2, sizes=SIZES), **fields)
    heading, look, text = verdict(results)
    assert (heading[0], look) == (sign, tone)
    assert ("KeyError: 'net1'" in text) == ("lacks" in fields)
    assert ("no time" in text) == ("reason" in fields)
    assert (NO_FINDINGS in text.lower()) == (NO_FINDINGS in render(results)) == (tone == "good")


def test_an_early_end_is_called_so_whatever_ended_it() -> None:
    page = read(
        html(changed(healthy(2, sizes=SIZES), findings=(FINDING.model_copy(update={"kind": "lost"}),)))
    )
    assert [text for _, one, text in page.all("span") if one.get("class") == "kind"] == ["Ended early"]


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
    assert "net1 against eth04 ×" in text
    assert "against" not in read(html(healthy(2, sizes=SIZES))).text("main")


def test_what_is_compared_has_its_own_name() -> None:
    """Another rail is no primary network."""
    page = read(html(healthy(2, sizes=SIZES, compare="net2")))
    assert [text for _, one, text in page.all("a") if one["href"] == "#against"] == ["net1 against net2"]
    assert "net1 against net2" in [text for _, _, text in page.all("h2")]
    assert "net1 against net2" in [text for _, _, text in page.all("dt")]
    assert "primary" not in page.text("body")


def test_an_interval_of_few_figures_is_no_interval_of_95_percent() -> None:
    """Of both tables of a collective, and of raw TCP."""
    for count, few in ((6, False), (2, True)):
        results = healthy(2, sizes=SIZES, compare="eth0", batches=count, slices=count)
        text = read(html(results)).text("main").replace("\u00a0", " ")
        rows = len(results.collectives)
        told = {what: text.count(f"(min … max of {count} {what})") for what in ("batches", "slices")}
        expected = {"batches": 2 * rows + rows // 2, "slices": len(results.tcp)}
        assert told == (expected if few else dict.fromkeys(expected, 0))
    one = read(html(healthy(2, sizes=SIZES[:1], batches=1))).text("main").replace("\u00a0", " ")
    assert "(min … max of 1 batch)" in one


def test_where_a_line_s_rate_is_from_is_said_as_on_the_screen() -> None:
    results = healthy(2, sizes=SIZES[:1])
    for known, words in (
        ("shaped", "shaped by --rate"), ("interface", "reported by the interface"), ("told", "set with --line")
    ):  # fmt: skip
        one = changed(
            results, lines=tuple(line.model_copy(update={"known": known}) for line in results.lines)
        )
        assert words in [text for _, _, text in read(html(one)).all("td")]
        assert f"net1 (backend): 1 Gbit/s line, {words}, MTU 9000, IPv6\n" in render(one)


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
    assert "node-2 → node-1" in read(drawn).text("desc").replace("\u00a0", " ")


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


def again(*words: str) -> tuple[str, str]:
    """(the command, what stands below)."""
    results = healthy(2, sizes=SIZES)
    assert results.setup
    setup = results.setup.model_copy(update={"command": ("torchnet", "bench", *words)})
    page = read(html(changed(results, setup=setup)))
    text = page.text("main")
    return page.text("pre"), text[text.index("How to reproduce") : text.index("Environment and versions")]


def test_the_command_is_quoted_for_a_shell() -> None:
    assert again("--env-file", "a b&c.txt")[0] == "torchnet bench --env-file 'a b&c.txt'"


def test_the_command_to_copy_overwrites_nothing_and_sets_nothing_wrong() -> None:
    masked = ("--env", "A=…", "--env=B=…", "--env", "C=", "--env", "HOME")
    command, text = again("-e", "1M", "--json", "r.json", *masked, "--html=r.html")
    assert command == "torchnet bench -e 1M --env C= --env HOME"
    assert "A, B." in text
    assert "--env" not in again("--env", "C=")[1].partition("C=")[2]
