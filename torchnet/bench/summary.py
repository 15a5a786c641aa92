"""The results of a benchmark as one screen of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torchnet.ansi import RESET
from torchnet.bench import tables
from torchnet.bench.results import Collective, Line, Results
from torchnet.bench.tcp_ceiling import line_factor
from torchnet.bench.worker.sizes import size_text
from torchnet.constants import is_rail
from torchnet.text import listed, printable
from torchnet.units import bit_rate, counted, percent, size

NO_FINDINGS = "no problems found in what was measured"
FINDINGS = "findings"  # ``what`` of Lacking if the findings could not be evaluated
_KNOWN = {"shaped": "shaped by --rate", "interface": "reported by the interface", "told": "set with --line"}


def rate_source(line: Line) -> str:
    """Return the source of the line's rate as text, or the value itself if a newer torchnet wrote it."""
    return _KNOWN.get(line.known) or printable(line.known, 40)


def has_figures(results: Results) -> bool:
    return bool(results.collectives or results.tcp)


def no_verdict(results: Results) -> str:
    """Return why an empty list of findings means nothing; empty if there are figures and they were evaluated."""
    for one in results.lacks:
        if one.what == FINDINGS:
            return f"findings could not be evaluated: {printable(one.why, 300)}"
    return "" if has_figures(results) else "nothing was measured"


_BOLD, _RED, _GREEN, _YELLOW = "1", "1;31", "32", "33"
_LOOPBACK = "lo"  # traffic between ranks of one node
_FEW = 4  # nodes up to which each pair has a line
_LACKING = 12  # lines shown of what was not measured; the JSON has all


def render(results: Results, *, color: bool = False, written: Sequence[str] = ()) -> str:
    """Return the whole text, without a trailing newline.

    Args:
        results: The results.
        color: Whether to use the terminal's colours.
        written: The files written, each with what it holds: "report.html (report)".
    """

    def styled(text: str, style: str) -> str:
        return f"\x1b[{style}m{text}{RESET}" if color else text

    out = [styled(line, _BOLD) if at == 0 else line for at, line in enumerate(_head(results))]
    for name in dict.fromkeys(one.collective for one in results.collectives):
        if tables.rows(results, name):
            heading, *others = tables.collective(results, name)
            out += ["", styled(heading, _BOLD), *others]
    out += _raw(results, styled)
    out += _unless_empty(["", *_sentences(results)])
    if results.lacks:
        out += ["", "not measured:"]
        out += [f"  {printable(one.what, 80)}: {printable(one.why, 300)}" for one in results.lacks[:_LACKING]]
        more = len(results.lacks) - _LACKING
        out += [f"  … and {more} more {tables.IN_JSON}"] if more > 0 else []
    out += _findings(results, styled)
    out.append("")
    if not results.complete:
        what = (
            "the figures above were measured before that" if has_figures(results) else "nothing was measured"
        )
        out.append(styled(f"INCOMPLETE: {printable(results.reason, 500)}; {what}", _RED))
    out += [f"written: {printable(one, 300)}" for one in written]
    while out[-1] == "":
        out.pop()
    return "\n".join(out)


def _unless_empty(lines: list[str]) -> list[str]:
    """Return nothing if only the leading empty line is there."""
    return lines if len(lines) > 1 else []


def _head(results: Results) -> Iterator[str]:
    setup = results.setup
    if setup is None:
        yield f"torchnet bench {printable(results.run)}".rstrip()
        return
    ranks = counted(setup.ranks, "rank")
    with_what = f"{setup.backend} on {printable(setup.device)}"
    yield f"torchnet bench · {counted(setup.nodes, 'node')}, {ranks} {setup.place} · {with_what}"
    versions = [f"{printable(name)} {printable(text, 40)}" for name, text in setup.versions.items()]
    yield " · ".join([f"torchnet {printable(results.torchnet)}", *versions, results.date])
    rails = [one.network for one in results.tcp if is_rail(one.network)]
    for name in dict.fromkeys((setup.interface, *rails, setup.compare)):
        if name:
            yield _network(results, name)


def _network(results: Results, name: str) -> str:
    line = results.line(name)
    role = "backend" if results.setup and results.setup.is_backend(name) else "compared"
    if line is not None:
        return f"{printable(name)} ({role}): {_line(line)}, MTU {line.mtu}, IPv{line.family}"
    mtus = sorted({node.mtus[name] for node in results.nodes if name in node.mtus})
    mtu = f"MTU {', '.join(map(str, mtus))}" if mtus else "MTU unknown"
    if results.setup and results.setup.nodes == 1:
        return f"{printable(name)} ({role}): {mtu}; a single node does not use it"
    if results.setup and results.setup.on == "local":
        why = (
            f"no rate (the link is this machine's memory{'; --rate shapes it' if role == 'backend' else ''})"
        )
    else:
        why = "no interface reports a rate" + ("; --line RATE sets it" if role == "backend" else "")
    return f"{printable(name)} ({role}): {mtu}, {why}"


def _line(line: Line) -> str:
    return f"{bit_rate(line.rate_bits_per_s)} line, {rate_source(line)}"


def _raw(results: Results, styled: Callable[[str, str], str]) -> Iterator[str]:
    """Show few nodes pair by pair, and many as one matrix for each network."""
    networks = list(dict.fromkeys(one.network for one in results.tcp))
    pairs = {frozenset((one.source, one.target)) for one in results.tcp}
    nodes = len({node for pair in pairs for node in pair})
    whole = nodes > 2 and len(pairs) == nodes * (nodes - 1) // 2
    if nodes <= _FEW or not whole:
        for line in tables.raw_tcp(results):
            yield from ("", styled(line, _BOLD)) if line.startswith("raw TCP") else (line,)
        networks = networks[:1]
    for network in networks if whole else ():
        for at, line in enumerate(tables.matrix(results, network)):
            yield from ("", styled(line, _BOLD)) if at == 0 else (line,)
    if nodes > _FEW and whole and results.latency:
        slowest = max(results.latency, key=lambda one: one.p50)
        pair = f"{printable(results.name(slowest.source))} - {printable(results.name(slowest.target))}"
        times = f"p50 {tables.number(slowest.p50 * 1e6)} us, p99 {tables.number(slowest.p99 * 1e6)} us"
        yield f"longest round trip: {pair} over {printable(slowest.network)}, {times}"


def _sentences(results: Results) -> Iterator[str]:
    """Summarise the tables in sentences."""
    own, compare = tables.networks(results)
    for name in dict.fromkeys(one.collective for one in results.collectives):
        largest = _largest(results, name)
        if largest is None:
            continue
        line = results.line(own)
        at = f"{name} at {size_text(largest.size)}"
        # In the unit of the line and of raw TCP, which differs from nccl-tests' columns.
        text = f"{at}: busbw {tables.number(largest.busbw * 8 / 1e9)} Gbit/s"
        if line is not None and largest.ceiling_share is not None:
            carries = f"what IPv{line.family} at MTU {line.mtu} can carry ({_line(line)})"
            text += f", {tables.share_text(largest.ceiling_share)} of {carries}"
        # Shares of the line count what the line carries.
        times = line_factor(name, results.setup.ranks, results.setup.nodes) if results.setup else 1.0
        yield text + (
            f"; a node's line carries {times:.3g} times that, for all its ranks" if times > 1 else ""
        )
        other = next((row.other for row in tables.rows(results, name) if row.main is largest), None)
        if other is not None and other.busbw:
            yield f"{at}: {own} reaches {tables.ratio(largest.busbw / other.busbw)} times the busbw of {compare}"
        slowest = min(
            (one.rate.median for one in results.tcp if one.network == own and one.both), default=0.0
        )
        lines = results.setup.lines_used if results.setup else 1
        if slowest:
            share = largest.busbw * times / (slowest * lines)
            each = f" over {lines} lines" if lines > 1 else ""
            yield f"{at}: {share * 100:.1f} % of raw TCP{each} on the slowest pair with both directions busy"
        yield from _byte_counts(largest, at)
    if results.backend_share is not None and has_figures(results):
        how = "not proved" if results.proof == "unknown" else printable(results.proof, 40)
        least = "at least " if how == "inferred" else ""
        yield f"receipt: {least}{percent(results.backend_share)} of the workers' bytes went over the backend ({how})"


def _byte_counts(row: Collective, at: str) -> Iterator[str]:
    """Compare the bytes that had to be sent with those that the kernel counted, on sockets and on interfaces."""
    sockets, interfaces = row.sockets_bytes, row.interface_bytes
    if not row.formula_bytes or (sockets is None and interfaces is None):
        return
    text = f"formula {size(round(row.formula_bytes))}"
    if sockets is not None:
        within = sockets.get(_LOOPBACK, 0)
        text += f", sockets {size(sum(sockets.values()))}"
        text += f" ({size(within)} of it within nodes)" if within else ""
    # Other interfaces carried something else.
    names = [
        name
        for name in interfaces or {}
        if name == row.network or (name != _LOOPBACK and name in (sockets or {}))
    ]
    for name in names:
        text += f", interface {printable(name)} {size((interfaces or {})[name])}"
    yield f"{at}: bytes: {text}"


def _largest(results: Results, collective: str) -> Collective | None:
    """Return the largest size over the backend. Smaller ones may fit into a queue or a token bucket and exceed the line
    rate."""
    found = [row.main for row in tables.rows(results, collective) if row.main and row.main.busbw]
    return max(found, key=lambda one: one.size, default=None)


def _findings(results: Results, styled: Callable[[str, str], str]) -> Iterator[str]:
    why = no_verdict(results)
    if why and (results.complete or has_figures(results)):
        yield from ("", styled(why, _YELLOW))
    if not results.findings:
        if not why and results.complete:
            yield from ("", styled(NO_FINDINGS, _GREEN))
        return
    yield from ("", styled(f"findings: {len(results.findings)}", _BOLD))
    for one in results.findings:
        where = (
            f" [{listed(one.where)}]" if one.where and not all(name in one.text for name in one.where) else ""
        )
        first, *others = one.text.splitlines() or [""]
        yield styled(f"  ! {printable(first)}{where}", _YELLOW)
        yield from (f"    {printable(line.strip())}" for line in others)
        if one.fix:
            yield f"    -> {printable(one.fix)}"
