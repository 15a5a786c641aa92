"""Build HTML in which everything that is not :class:`Html` is escaped, wherever it comes from.

Names of nodes, reasons and environment variables come from other machines. Besides HTML's special characters they may
contain control and bidirectional characters, which would disguise the text. These are shown as escapes, as on the
terminal.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torchnet.ansi import clean

_VOID = ("meta", "br")
_NAME = re.compile(r"[a-z][a-z0-9-]*")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | Iterable[str]
Attribute = str | int | bool | None


def plain(text: str) -> str:
    """Escape characters that are not shown as themselves; keep line breaks."""
    return "\n".join(clean(line) for line in text.split("\n"))


def escape(content: Content) -> Html:
    """Return the HTML of text, of HTML, or of a sequence of these."""
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(html.escape(plain(content)))
    return Html("".join(escape(one) for one in content))


def tag(name: str, /, *content: Content, **attributes: Attribute) -> Html:
    """Return an element. ``class_`` becomes the attribute class, ``aria_label`` aria-label; None and False omit the
    attribute."""
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{html.escape(plain(str(value)).replace(chr(10), " "))}"')
    opened = f"<{' '.join(words)}>"
    return Html(opened if name in _VOID else f"{opened}{''.join(escape(one) for one in content)}</{name}>")


@dataclass
class Ids:
    """The ids of one page; each is unique."""

    _given: dict[str, int] = field(default_factory=dict)

    def new(self, stem: str) -> str:
        """Return ``stem``, with a number appended if it is taken. ``stem`` has lower-case letters, digits and
        hyphens."""
        if not _NAME.fullmatch(stem):
            raise ValueError(f"no stem of an id: {stem!r}")
        count = self._given[stem] = self._given.get(stem, 0) + 1
        return stem if count == 1 else f"{stem}-{count}"


@dataclass(frozen=True)
class Column:
    """``number``: cells are figures, aligned to the right."""

    heading: str
    number: bool = False


def table(
    ids: Ids,
    caption: Content,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Content]],
    *,
    words: bool = False,
) -> Html:
    """Return a table that scrolls if the page is narrower; the first cell of each row is its header. ``words`` allows a
    line break anywhere in a cell."""
    name = ids.new("table")
    heads = [tag("th", one.heading, scope="col", class_="number" if one.number else None) for one in columns]
    body = []
    for row in rows:
        cells = []
        for index, (column, cell) in enumerate(zip(columns, row, strict=True)):
            kind = "number" if column.number else None
            cells.append(tag("td", cell, class_=kind) if index else tag("th", cell, scope="row", class_=kind))
        body.append(tag("tr", cells))
    inner = tag(
        "table",
        tag("caption", tag("span", caption, id=name)),
        tag("thead", tag("tr", heads)),
        tag("tbody", body),
        class_="words" if words else None,
    )
    return scroll(inner, name)


def scroll(content: Html, label: str) -> Html:
    """Return a scrollable group that the keyboard can reach; the element with the id ``label`` names it."""
    return tag("div", content, class_="scroll", role="group", aria_labelledby=label, tabindex=0)


def details(summary: str, *content: Content) -> Html:
    return tag("details", tag("summary", summary), *content)


def section(ids: Ids, stem: str, heading: str, *content: Content) -> Html:
    name = ids.new(stem)
    return tag("section", tag("h2", heading, id=name), *content, aria_labelledby=name)


def code(text: str) -> Html:
    return tag("code", text)
