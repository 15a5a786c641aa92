"""The top of the page: the findings, or that there are none, or why this is not known; and the key figures."""

from __future__ import annotations

from torchnet.bench.html import numbers, view_model
from torchnet.bench.html.markup import Html, Ids, code, tag
from torchnet.bench.results import Results
from torchnet.bench.summary import NO_FINDINGS, has_figures, no_verdict
from torchnet.units import counted

WORDS = {
    "slow-node": "Slow node", "slow-pair": "Slow pair", "asymmetry": "Asymmetric direction", "mtu": "MTU",
    "single-stream": "Single-stream limit", "cpu-bound": "CPU-bound", "wrong-interface": "Wrong interface",
    "buffers": "Socket buffers", "loss": "Packet loss", "bytes": "Bytes differ", "wrong-results": "Wrong results",
    "slow-collective": "Slow collective", "noise": "Noise", "network": "Network", "lost": "Ended early",
}  # fmt: skip


def summary(results: Results) -> str:
    """Return the verdict in a few words."""
    why = no_verdict(results)
    if results.findings:
        found = counted(len(results.findings), "finding")
    else:
        found = why.partition(":")[0] if why else "no problems found"
    if results.complete:
        return found
    # After an early end it is unknown what else would have been found.
    return f"incomplete, {found}" if results.findings or why else "incomplete"


def verdict(results: Results, ids: Ids) -> Html:
    name = ids.new("verdict")
    why = no_verdict(results)
    words: list[Html] = []
    if results.findings:
        tone, sign = "bad", "✗"
    else:
        tone, sign = ("warn", "!") if why or not results.complete else ("good", "✓")
    if not results.complete:
        sign = "!"
        reason = results.reason or "unknown reason"
        words.append(tag("p", tag("strong", "The run ended early: "), reason))
        if has_figures(results):
            words.append(tag("p", "The figures were measured before that; the rest was not measured."))
    if why:
        words.append(tag("p", f"{_sentence(why).rstrip('.')}."))
    elif results.complete and not results.findings:
        words.append(tag("p", f"{_sentence(NO_FINDINGS)}."))
    if results.findings:
        words.append(tag("p", "Each finding with its next command:"))
    heading = tag("h2", tag("span", f"{sign} ", aria_hidden="true"), _sentence(summary(results)), id=name)
    box = tag("div", heading, words, class_=f"verdict {tone}")
    return tag("section", box, _findings(results), _tiles(results), aria_labelledby=name)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _findings(results: Results) -> Html:
    items = []
    for one in results.findings:
        about = f" · {', '.join(one.where)}" if one.where else ""
        head = tag("p", tag("span", WORDS.get(one.kind, one.kind), class_="kind"), about)
        fix = tag("p", "Next: ", code(one.fix)) if one.fix else Html("")
        items.append(tag("li", head, tag("p", one.text), fix))
    return tag("ul", items, class_="findings", role="list", aria_label="Findings") if items else Html("")


def _tiles(results: Results) -> Html:
    tiles = []
    network = next(iter(view_model.networks(results)), "")
    best = view_model.best(results)
    if best:
        tiles.append(_tile("Best bus bandwidth (busbw)", numbers.rate(best.busbw), view_model.where(best)))
        if best.ceiling_share is not None:
            line = results.line(best.network)
            of = f" ({numbers.rate(line.ceiling)})" if line else ""
            what = f"busbw over what TCP can carry on {best.network}{of}"
            tiles.append(_tile("Percent of the line", numbers.share(best.ceiling_share), what))
    if ratios := view_model.ratios(results):
        last = max(ratios, key=lambda one: (one.name == ratios[0].name, one.backend.size))
        what = f"{last.backend.network} over {last.other.network}, {view_model.where(last.backend)}"
        tiles.append(_tile(view_model.against(results), numbers.ratio(last.value), what))
    if slowest := view_model.slowest(view_model.one_way(results, network)):
        what = f"{view_model.path(results, slowest)}, {counted(slowest.streams, 'stream')}"
        tiles.append(_tile("Slowest pair, raw TCP", numbers.rate(slowest.rate.median), what))
    if answer := view_model.slowest_answer(results, network):
        what = f"median; p99 {numbers.time(answer.p99)}; slowest pair: {view_model.path(results, answer)}"
        tiles.append(_tile("Round-trip latency", numbers.time(answer.p50), what))
    if results.backend_share is not None:
        how = f"of the bytes between the workers ({results.proof})"
        tiles.append(_tile("Backend share", numbers.share(results.backend_share), how))
    return tag("dl", tiles, class_="tiles") if tiles else Html("")


def _tile(what: str, value: str, more: str) -> Html:
    return tag("div", tag("dt", what), tag("dd", value, class_="value"), tag("dd", more, class_="soft"))
