"""Find the node, pair or direction that is slower than the others, or that loses packets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torchnet.bench.findings import finding_text, thresholds
from torchnet.bench.findings.finding_text import join_names, rate
from torchnet.bench.findings.result_index import (
    Direction,
    ResultIndex,
    cpu_limit,
    fast_stream,
    varies_with_load,
)
from torchnet.bench.results import Finding, Tcp
from torchnet.units import percent


@dataclass
class Paths:
    """``covered`` has the directions that a finding covers already."""

    findings: list[Finding] = field(default_factory=list)
    covered: set[Direction] = field(default_factory=set)


def find_loss(view: ResultIndex) -> Paths:
    """Find directions that lose packets: segments are retransmitted, and either it costs rate or latency, or there are
    more of them than a full queue explains."""
    rows: dict[Direction, Tcp] = {}
    for row in view.tcp:
        way = row.source, row.target
        if _loses_packets(view, row) and (way not in rows or _retransmitted(row) > _retransmitted(rows[way])):
            rows[way] = row
    if not rows:
        return Paths()
    worst = sorted(rows, key=lambda way: -_retransmitted(rows[way]))
    nodes = _common_nodes(worst, view)
    one = f", all from or to {view.name(nodes[0])}" if len(nodes) == 1 and len(worst) > 1 else ""
    ways = join_names([f"{percent(_retransmitted(rows[way]))} from {view.way(way)}" for way in worst])
    text = f"Packets are lost on {view.network}: the retransmitted segments are {ways}{one}."
    fix = finding_text.check_network(view)
    names = [view.name(node) for node in nodes] or [view.name(node) for node in worst[0]]
    return Paths([Finding(kind="loss", text=text, fix=fix, where=tuple(names))], set(rows))


def _retransmitted(row: Tcp) -> float:
    return row.repeated / row.segments if row.segments else 0.0


def _loses_packets(view: ResultIndex, row: Tcp) -> bool:
    share = _retransmitted(row)
    if row.repeated < thresholds.REPEATED_COUNT or share <= thresholds.REPEATED:
        return False
    if view.stalled & {(row.source, row.target), (row.target, row.source)}:
        return True
    if cpu_limit(view, row) or (view.line is None and varies_with_load(view, row)):
        return False
    if view.line is None:
        slow = row.rate.high < thresholds.SLOW * _reference_rate(view, set())
        return slow and share > thresholds.REPEATED_ALONE and row.rate.spread > thresholds.LOSS_UNSTEADY
    if row.rate.high < thresholds.REACHED * view.line.ceiling and not fast_stream(row):
        return row.rate.spread > thresholds.LOSS_UNSTEADY
    return share > thresholds.REPEATED_ALONE and view.line.rate_bits_per_s >= thresholds.LOSS_RATE


def _common_nodes(ways: Iterable[Direction], view: ResultIndex) -> list[int]:
    """Return the nodes that all these directions share, if there are other nodes to compare with."""
    sets = [set(way) for way in ways]
    common = set.intersection(*sets) if sets else set()
    return sorted(common) if view.setup.nodes > 2 else []


def find_slow(view: ResultIndex, covered: set[Direction], *, line: bool = True) -> Paths:
    """Find slow nodes first, then senders and receivers, then pairs and single directions; each is reported once.
    ``line`` allows comparing with the line's rate if there is nothing else."""
    found = Paths(covered=set(covered))
    ways = view.alone
    nodes = sorted({node for way in ways for node in way})
    reference = _reference_rate(view, set())
    if len(nodes) > 2:
        for node in nodes:
            _node(view, found, node)
        slow_ways = {way for way, row in ways.items() if _is_slow(view, row, reference)}
        for side in (0, 1):
            for node in nodes:
                _one_sided(view, found, node, side, slow_ways)
    for source, target in sorted(ways):
        if source < target or (target, source) not in ways:
            _pair(view, found, (source, target), reference, line)
    if not found.findings and line:
        _all_pairs(view, found)
    return found


def _reference_rate(view: ResultIndex, without: set[int]) -> float:
    """Return what the directions without these nodes reach: the upper quartile, so that a second slow node does not
    hide the first. 0.0 without other directions."""
    rates = sorted(row.rate.median for way, row in view.alone.items() if not without & set(way))
    return rates[-1 - (len(rates) - 1) // 4] if rates else 0.0


def _is_slow(view: ResultIndex, row: Tcp, reference: float) -> bool:
    """Compare with ``reference``, the rate that others reach in as many streams."""
    least = thresholds.SLOW * reference
    sure = thresholds.ONE_STREAM * row.streams
    if reference > sure:  # below, the streams are not the limit
        least = max(thresholds.SLOW * sure, thresholds.SLOW_STREAM * reference)
    if cpu_limit(view, row, thresholds.BUSY if view.line else thresholds.BUSY_UNSHAPED):
        least = min(least, thresholds.SLOW_BUSY * reference)
    return row.rate.high < least


def _line(view: ResultIndex, rows: Iterable[Tcp]) -> float:
    """Return the rate that these rows should reach for certain, or 0.0 if nothing is certain.

    One stream uses one cable of a bond, while the interface reports their sum; clouds limit each flow; and a core has a
    limit of its own.
    """
    rows = list(rows)
    if view.line is None or any(cpu_limit(view, row) for row in rows):
        return 0.0
    streams = min((row.streams for row in rows), default=1)
    if streams == 1 and view.line.known == "interface":
        return 0.0
    return min(view.line.ceiling, thresholds.ONE_STREAM * streams)


def _cpu_note(view: ResultIndex, rows: Iterable[Tcp]) -> str:
    """Return the processor's part in it as the end of the sentence."""
    reason = next((reason for row in rows if (reason := cpu_limit(view, row))), "")
    return f" ({reason})" if reason else ""


def _node(view: ResultIndex, found: Paths, node: int) -> None:
    own = {way: row for way, row in view.alone.items() if node in way}
    reference = _reference_rate(view, {node})
    others = {other for way in own for other in way} - {node}
    if len(others) < 2 or not reference or found.covered & set(own) == set(own):
        return
    if not all(_is_slow(view, row, reference) for row in own.values()):
        return
    rates = sorted(row.rate.median for row in own.values())
    text = (
        f"{view.name(node)} is slower than the other nodes: raw TCP with it reaches {rate(rates[0])} to "
        f"{rate(rates[-1])}, but {rate(reference)} between the others{_cpu_note(view, own.values())}."
    )
    fix = finding_text.check_network(view)
    found.findings.append(Finding(kind="slow-node", text=text, fix=fix, where=(view.name(node),)))
    found.covered |= set(own)


def _one_sided(view: ResultIndex, found: Paths, node: int, side: int, slow_ways: set[Direction]) -> None:
    """``side`` is 0 for what the node sends, 1 for what it receives."""
    own = {way for way in view.alone if way[side] == node}
    back = {(b, a) for a, b in own} & set(view.alone)
    if len(own) < 2 or not own <= slow_ways or not back - slow_ways or own & found.covered:
        return
    at_most = max(view.alone[way].rate.median for way in own)
    at_least = min(view.alone[way].rate.median for way in back - slow_ways)
    verb, other, preposition = (("sends", "receives", "to"), ("receives", "sends", "from"))[side]
    text = (
        f"{view.name(node)} {verb} more slowly than it {other}: at most {rate(at_most)} {preposition} each of "
        f"{len(own)} nodes, but {rate(at_least)} in the other direction"
        f"{_cpu_note(view, (view.alone[way] for way in own))}."
    )
    fix = finding_text.check_network(view)
    found.findings.append(Finding(kind="asymmetry", text=text, fix=fix, where=(view.name(node),)))
    found.covered |= own


def _is_asymmetric(view: ResultIndex, way: Direction) -> bool:
    """Return whether this direction is slower than the opposite one."""
    row, back = view.alone.get(way), view.alone.get((way[1], way[0]))
    if row is None or back is None:
        return False
    factor = (
        thresholds.ASYMMETRY_BUSY
        if varies_with_load(view, row) or varies_with_load(view, back)
        else thresholds.ASYMMETRY
    )
    if fast_stream(back):
        factor = thresholds.ASYMMETRY_STREAM
    return back.rate.median > factor * row.rate.median and back.rate.low > row.rate.high


def _pair(view: ResultIndex, found: Paths, way: Direction, reference: float, line: bool) -> None:
    """``reference`` is what the other pairs reach."""
    back = way[1], way[0]
    if found.covered & {way, back}:
        return
    rows = [view.alone[one] for one in (way, back) if one in view.alone]
    comparison = f"other pairs reach {rate(reference)}"
    if view.setup.nodes == 2 and view.line and line and (least := _line(view, rows)):
        reference, comparison = least, f"the line can carry {rate(view.line.ceiling)}"
    names = view.name(way[0]), view.name(way[1])
    if all(_is_slow(view, row, reference) for row in rows):
        text = (
            f"The path between {names[0]} and {names[1]} is slow: raw TCP reaches "
            f"{' and '.join(rate(row.rate.median) for row in rows)} in the two directions, but {comparison}"
            f"{_cpu_note(view, rows)}."
        )
        fix = finding_text.check_network(view)
        found.findings.append(Finding(kind="slow-pair", text=text, fix=fix, where=names))
        found.covered |= {way, back}
        return
    for one in (way, back):
        if _is_asymmetric(view, one):
            row, other = view.alone[one], view.alone[one[1], one[0]]
            text = (
                f"The direction {view.way(one)} is slow: {rate(row.rate.median)}, but {rate(other.rate.median)} in "
                f"reverse; the sender is {view.name(one[0])}{_cpu_note(view, [row])}."
            )
            fix = finding_text.check_network(view)
            where = view.name(one[0]), view.name(one[1])
            found.findings.append(Finding(kind="asymmetry", text=text, fix=fix, where=where))
            found.covered |= {way, back}


def _all_pairs(view: ResultIndex, found: Paths) -> None:
    """No pair is slower than the others, and none reaches the line's rate."""
    if view.line is None or found.covered or len(view.alone) < 3:
        return
    rows = list(view.alone.values())
    best = max(rows, key=lambda row: row.rate.median)
    if not _is_slow(view, best, _line(view, rows)):
        return
    text = (
        f"All pairs are slow: raw TCP reaches {rate(best.rate.median)} at best, but the line can carry "
        f"{rate(view.line.ceiling)}."
    )
    fix = finding_text.check_network(view)
    found.findings.append(Finding(kind="slow-pair", text=text, fix=fix))
    found.covered |= set(view.alone)
