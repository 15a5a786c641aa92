"""The whole page. It runs no script and loads nothing, and its security policy tells the browser to enforce that."""

from __future__ import annotations

from torchnet.bench.html import (
    collectives_section,
    environment_section,
    tcp_section,
    verdict_section,
    view_model,
)
from torchnet.bench.html.markup import Html, Ids, escape, tag
from torchnet.bench.html.style import css
from torchnet.bench.results import Results
from torchnet.units import counted

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_LINKS = {
    "collectives": "Collectives",
    "tcp": "Raw TCP",
    "latency": "Latency",
    "lacking": "Not measured",
    "again": "How to reproduce",
    "environment": "Environment",
    "nodes": "Nodes",
}


def html(results: Results) -> str:
    """Return the text of the HTML file. The same results give the same bytes.

    Raises:
        ImportError: matplotlib is missing; :func:`check` reports this before anything is measured.
    """
    ids = Ids()
    top = verdict_section.verdict(results, ids)
    sections = {
        "collectives": collectives_section.collectives(results, ids) if results.collectives else Html(""),
        "against": collectives_section.against(results, ids),
        "tcp": tcp_section.paths(results, ids),
        "latency": tcp_section.latency(results, ids),
        "lacking": environment_section.lacking(results, ids),
        "again": environment_section.again(results, ids),
        "environment": environment_section.environment(results, ids),
        "nodes": environment_section.nodes(results, ids),
    }
    names = {**_LINKS, "against": view_model.against(results)}
    links = [
        tag("li", tag("a", names[name], href=f"#{name}")) for name, content in sections.items() if content
    ]
    title = f"torchnet bench: {verdict_section.summary(results)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(css())),
    )
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#main", class_="skip"),
        tag(
            "header",
            tag("h1", "Network benchmark"),
            tag("p", _subtitle(results), class_="soft"),
            tag("nav", tag("ul", links, role="list"), aria_label="Sections"),
        ),
        tag("main", top, list(sections.values()), id="main", tabindex=-1),
        tag(
            "footer",
            f"torchnet {results.torchnet}, {results.schema_}. Rates use SI units, sizes powers of 1024.",
        ),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _subtitle(results: Results) -> str:
    words = [results.run] if results.run else []
    if setup := results.setup:
        words.append(f"{setup.backend} on {setup.device}")
        words.append(f"{counted(setup.ranks, 'rank')} on {counted(setup.nodes, 'node')}")
        words.append(setup.place)
    return " · ".join([*words, results.date])
