"""The benchmark's page in a real Chromium: light and dark, wide and on a phone, by keyboard and as it is read aloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, browser
from tests.unit.bench_results import changed, healthy
from torchnet.bench.html import html
from torchnet.bench.results import Finding, Lacking

WIDE, PHONES = (1200, 900), ((320, 640), (360, 780), (400, 860))
LONG = "a-worker-of-a-job-with-a-name-as-long-as-kubernetes-allows-one-0"
UNBROKEN = "without_a_place_to_break_" * 8


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as running:
        yield running


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A page with all that makes one wide: eight nodes, long names and commands, all tables."""
    results = healthy(
        8, compare="eth0", sizes=(1 << 10, 1 << 16, 1 << 22), collectives=("all_reduce", "broadcast"),
        path=lambda a, b: 0.1 if (a, b) == (2, 5) else 1.0,
    )  # fmt: skip
    assert results.setup
    nodes = (results.nodes[0].model_copy(update={"name": LONG}), *results.nodes[1:])
    setup = results.setup.model_copy(
        update={"command": ("torchnet", "bench", UNBROKEN), "environment": {UNBROKEN: UNBROKEN}}
    )
    finding = Finding(kind="slow-pair", text=UNBROKEN, fix=UNBROKEN, where=(LONG, UNBROKEN))
    lacks = (Lacking(what=UNBROKEN, why=UNBROKEN),)
    file = tmp_path / "report.html"
    file.write_text(html(changed(results, nodes=nodes, setup=setup, findings=(finding,), lacks=lacks)))
    return file


def told(chromium: Browser, *methods: str) -> list[dict[str, Any]]:
    return [event["params"] for event in chromium.events if event.get("method") in methods]


def tree(chromium: Browser) -> list[tuple[str, str]]:
    """Role and name of each node that assistive software is told."""
    nodes = chromium.ask("Accessibility.getFullAXTree")["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]


def test_nothing_is_loaded_and_nothing_complained_of(chromium: Browser, report: Path) -> None:
    chromium.show(*WIDE)
    chromium.open(report)
    assert [one["request"]["url"] for one in told(chromium, "Network.requestWillBeSent")] == [report.as_uri()]
    chromium.value("0")  # whatever was to be said before has arrived
    assert told(chromium, "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []


def test_it_fits_a_phone_and_a_desk_in_light_and_dark(
    chromium: Browser, report: Path, tmp_path: Path
) -> None:
    chromium.show(*WIDE)
    chromium.open(report)
    grounds = {}
    for size in (WIDE, *PHONES):
        for dark in (False, True):
            chromium.show(*size, dark=dark)
            for opened in (False, True):
                chromium.value(
                    f"document.querySelectorAll('details').forEach(one => one.open = {str(opened).lower()})"
                )
                assert chromium.value("document.documentElement.scrollWidth") == size[0]
            grounds[dark] = chromium.value("getComputedStyle(document.body).backgroundColor")
            # One of each plot's two drawings is there, and its letters are large enough to be read.
            kinds = ("wide", "narrow") if size is WIDE else ("narrow", "wide")
            shown, hidden = (
                f"document.querySelector('.{kind} text').getBoundingClientRect().height" for kind in kinds
            )
            assert chromium.value(hidden) == 0
            assert chromium.value(shown) >= 10
            if size in (WIDE, PHONES[1]):
                picture = tmp_path / f"{size[0]}-{'dark' if dark else 'light'}.png"
                chromium.picture(picture)
                assert picture.read_bytes().startswith(b"\x89PNG")
    assert grounds == {False: "rgb(255, 255, 255)", True: "rgb(15, 20, 25)"}


def test_it_is_told_as_it_is_seen(chromium: Browser, report: Path) -> None:
    chromium.show(*WIDE)
    chromium.open(report)
    told = tree(chromium)
    assert all(
        name for role, name in told if role in ("heading", "image", "table", "region", "link", "navigation")
    )
    assert ("heading", "Network benchmark") in told
    assert ("heading", "1 finding") in [(role, name.lstrip("✗ ")) for role, name in told]
    roles = {role for role, _ in told}
    assert {
        "banner",
        "navigation",
        "main",
        "contentinfo",
        "list",
        "term",
        "columnheader",
        "rowheader",
    } <= roles
    # Each plot once, with what it shows: of its two drawings one is hidden.
    images = [name for role, name in told if role == "image"]
    assert len(images) == len(set(images)) == 5
    assert any("the slowest is node-2 → node-5" in name.replace("\u00a0", " ") for name in images)


def test_the_keyboard_reaches_what_scrolls(chromium: Browser, report: Path) -> None:
    chromium.show(*PHONES[1])
    chromium.open(report)
    wanted = chromium.value(
        "[...document.querySelectorAll('.scroll')].filter(one => one.checkVisibility()).length"
    )
    assert wanted > 3
    chromium.press("Tab", 9)
    assert chromium.value("document.activeElement.className") == "skip"
    assert chromium.value("document.activeElement.getBoundingClientRect().left") >= 0
    reached = set()
    for _ in range(60):
        chromium.press("Tab", 9)
        if chromium.value("document.activeElement.className") == "scroll":
            reached.add(chromium.value("document.activeElement.getAttribute('aria-labelledby')"))
            assert chromium.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert len(reached) == wanted
    chromium.value("document.querySelector('.scroll:has(svg)').focus()")
    for _ in range(3):
        chromium.press("ArrowRight", 39)
    # It moves smoothly, or at once: until it did.
    moved = (
        "new Promise(done => { const look = () => "
        "document.activeElement.scrollLeft ? done(1) : setTimeout(look, 20); look() })"
    )
    answer = chromium.ask("Runtime.evaluate", expression=moved, awaitPromise=True, timeout=10_000)
    assert answer["result"]["value"] == 1


def test_it_prints(chromium: Browser, report: Path) -> None:
    """On white paper with dark letters, whatever the screen is like, and with the figures that are folded."""
    chromium.show(*WIDE, dark=True)
    chromium.open(report)
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    chromium.ask("Emulation.setEmulatedMedia", media="print", features=[scheme])
    assert chromium.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.value(
        "document.querySelector('details table').checkVisibility({contentVisibilityAuto: true})"
    )
    assert chromium.ask("Page.printToPDF")["data"].startswith("JVBERi0")  # %PDF-


def test_each_legend_is_within_its_plot(chromium: Browser, tmp_path: Path) -> None:
    """Of the longest labels that there are: a type's long name, an interface's of 15 characters."""
    results = healthy(
        2, compare="enp129s0f0np0v1", sizes=(1 << 10, 1 << 22), collectives=("reduce_scatter", "all_to_all")
    )
    rows = tuple(
        one.model_copy(update={"dtype": kind})
        for kind in ("float32", "bfloat16")
        for one in results.collectives
    )
    file = tmp_path / "report.html"
    file.write_text(html(changed(results, collectives=rows)))
    outside = """
        [...document.querySelectorAll('figure svg')].filter(one => one.checkVisibility()).flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const own = text.getBoundingClientRect();
                return own.left < box.left - 0.5 || own.right > box.right + 0.5 || own.top < box.top - 0.5;
            }).map(text => text.textContent);
        })
    """
    for size in (WIDE, *PHONES):
        chromium.show(*size)
        chromium.open(file)
        drawn = chromium.value("[...document.querySelectorAll('figure text')].map(one => one.textContent)")
        assert any("bfloat16" in text for text in drawn), drawn
        assert any("enp12" in text and "line" in text for text in drawn), drawn
        assert chromium.value(outside) == []
