"""A benchmark's page as its tests read it, and results that fill each of its sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from tests.unit.bench_results import changed, healthy
from torchnet.bench.results import Finding, Lacking, Results

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
    return changed(
        healthy(4, compare="eth0", sizes=SIZES, collectives=("all_reduce", "broadcast")),
        findings=(FINDING,),
        lacks=(Lacking(what="reduce over x", why="it has none"),),
        complete=False,
        reason="node-2 was lost",
    )
