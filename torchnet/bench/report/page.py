"""The page as a whole. It runs no script and loads nothing, and says so to the browser as well."""

from __future__ import annotations

from torchnet.bench.report import collectives, facts, paths, verdict, view
from torchnet.bench.report.markup import Html, Ids, escape, tag
from torchnet.bench.report.style import css
from torchnet.bench.results import Results
from torchnet.ui.units import counted

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_LINKS = {
    "collectives": "Collectives",
    "tcp": "Raw TCP",
    "latency": "Latency",
    "lacking": "Not measured",
    "tuning": "Tuning",
    "again": "How to reproduce",
    "environment": "Environment",
    "nodes": "Nodes",
}


def html(results: Results) -> str:
    """The text of the HTML file. The same results give the same bytes.

    Raises:
        ImportError: matplotlib is missing; :func:`check` says so before anything is measured.
    """
    ids = Ids()
    top = verdict.verdict(results, ids)
    sections = {
        "collectives": collectives.collectives(results, ids) if results.collectives else Html(""),
        "against": collectives.against(results, ids),
        "tcp": paths.paths(results, ids),
        "latency": paths.latency(results, ids),
        "lacking": facts.lacking(results, ids),
        "tuning": facts.tuning(results, ids),
        "again": facts.again(results, ids),
        "environment": facts.environment(results, ids),
        "nodes": facts.nodes(results, ids),
    }
    names = {**_LINKS, "against": view.against(results)}
    links = [tag("li", tag("a", names[name], href=f"#{name}")) for name, made in sections.items() if made]
    title = f"torchnet bench: {verdict.summary(results)}"
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
            f"Made by torchnet {results.torchnet} from {results.schema_}. Rates in SI units, sizes in powers of 1024.",
        ),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _subtitle(results: Results) -> str:
    words = [results.run] if results.run else []
    if setup := results.setup:
        words.append(f"{setup.backend} on {setup.device}")
        words.append(f"{counted(setup.ranks, 'rank')} on {counted(setup.nodes, 'node')}")
        words.append("on this machine" if setup.on == "local" else "on Kubernetes")
    return " · ".join([*words, results.date])
