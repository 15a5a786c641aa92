"""Compare two benchmark runs: match their rows, and list the differences between their set-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torchnet.bench import significance
from torchnet.bench.findings import thresholds
from torchnet.bench.results import Collective, Figure, Finding, Latency, Results, Tcp
from torchnet.bench.significance import Change, Verdict
from torchnet.bench.worker.sizes import size_text

Kind = Literal["large", "small", "tcp", "latency"]


@dataclass(frozen=True)
class ComparedRow:
    """One row that both runs have.

    Figures are in bytes per second, those of latency in seconds. ``ratio`` is new over old.
    """

    what: str
    kind: Kind
    old: Figure
    new: Figure
    ratio: float
    verdict: Verdict
    steady: bool = False
    """The network decides this row, not the scheduler, so that the row alone can show that something is slower."""


@dataclass(frozen=True)
class ComparedSeries:
    """Rows that are judged together, such as all large sizes of a collective or all directions of raw TCP.

    ``ratio`` is new over old, of rates or of round-trip times; ``low`` and ``high`` are its interval. The verdict of a
    series counts; those of single rows only help to look closer.
    """

    what: str
    kind: Kind
    rows: tuple[ComparedRow, ...]
    ratio: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """The differences between two runs.

    ``setup`` has a sentence for each other difference, which may be the cause. ``alone`` has rows that are much slower
    in a series that is not. About the new run, as text: ``wrong`` lists rows with wrong results; ``missing`` lists what
    it could not measure, if it lacks rows of the old run; ``findings`` lists network problems that the old run did not
    have. ``early`` is true if the new run did not finish.
    """

    setup: tuple[str, ...]
    series: tuple[ComparedSeries, ...]
    alone: tuple[ComparedRow, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    early: bool = False

    @property
    def rows(self) -> tuple[ComparedRow, ...]:
        return tuple(row for series in self.series for row in series.rows)

    @property
    def worse(self) -> bool:
        """Return whether something is slower beyond noise, or the new run is invalid regardless of its speed."""
        return bool(self.wrong or self.missing or self.findings or self.early or self.alone) or any(
            series.verdict == "slower" for series in self.series
        )


def setup(old: Results, new: Results) -> tuple[str, ...]:
    """Return a sentence for each difference between the set-ups."""
    found = []
    for side, results in (("old", old), ("new", new)):
        if not results.complete:
            found.append(f"the {side} run ended early: {results.reason or 'unknown reason'}")
    if any(row.wrong for row in old.collectives):
        found.append("the old run has wrong results")
    before, after = _facts(old), _facts(new)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            found.append(f"{name}: {before.get(name, 'none')}, now {after.get(name, 'none')}")
    return tuple(found)


def _facts(results: Results) -> dict[str, str]:
    """What a run's figures depend on, by name."""
    found = {"torchnet": results.torchnet}
    if results.setup:
        one = results.setup
        for name in ("on", "backend", "device", "nodes", "ranks", "interface", "compare", "image"):
            if (value := str(getattr(one, name))) != "":
                found[name] = value
        found |= {f"version of {name}": value for name, value in one.versions.items()}
        # Some contain the run's name, such as NCCL_HOSTID.
        run = results.run or "\0"
        found |= {name: value.replace(run, "RUN") for name, value in one.environment.items()}
    for line in results.lines:
        found[f"line of {line.network}"] = (
            f"{line.rate_bits_per_s / 1e9:.6g} Gbit/s ({line.known}), MTU {line.mtu}, IPv{line.family}"
        )
    for name in ("cpu", "kernel", "cores"):
        values = dict.fromkeys(str(getattr(node, name)) for node in results.nodes)
        if values:
            found[f"{name} of the nodes"] = ", ".join(values)
    interface = results.setup.interface if results.setup else ""
    mtus = dict.fromkeys(str(node.mtus[interface]) for node in results.nodes if interface in node.mtus)
    if mtus:
        found[f"MTU of {interface}"] = ", ".join(mtus)
    return found


Key = tuple[Any, ...]

OF_THE_NETWORK = ("wrong-interface", "mtu", "slow-node", "slow-pair", "asymmetry", "loss")
"""Kinds of findings that make the new run worse if the old run has none of the same kind and place."""

_RATE_BOUND = 0.8
"""Share of the best busbw of a series. From there on the line rate decides the time of a size; below, the round trips
do."""


def compare(old: Results, new: Results) -> Comparison:
    """Match rows by network, collective, size, dtype, redop, root and place; rows of raw TCP by nodes, direction and
    streams."""
    found: list[ComparedSeries] = []
    only_old: list[str] = []
    only_new: list[str] = []

    def matched(before: Mapping[Key, Any], after: Mapping[Key, Any], name: Callable[[Any], str]) -> list[Key]:
        only_old.extend(name(one) for key, one in before.items() if key not in after)
        only_new.extend(name(one) for key, one in after.items() if key not in before)
        return [key for key in before if key in after]

    old_rows, new_rows = _by(old.collectives, _collective_key), _by(new.collectives, _collective_key)
    keys = matched(old_rows, new_rows, _collective_name)
    for group in dict.fromkeys(key[:-1] for key in keys):
        pairs = [(old_rows[key], new_rows[key]) for key in keys if key[:-1] == group]
        found += _collectives(pairs)

    old_tcp, new_tcp = _by(old.tcp, _tcp_key), _by(new.tcp, _tcp_key)
    keys = matched(old_tcp, new_tcp, lambda row: _tcp_name(new, row))
    for group in dict.fromkeys(key[:3] for key in keys):
        rows = [_tcp(old, new, old_tcp[key], new_tcp[key]) for key in keys if key[:3] == group]
        found.append(_series(_tcp_group(group), "tcp", rows))

    old_pings, new_pings = _by(old.latency, _latency_key), _by(new.latency, _latency_key)
    keys = matched(old_pings, new_pings, lambda row: _latency_name(new, row))
    for group in dict.fromkeys(key[:2] for key in keys):
        pings = [(old_pings[key], new_pings[key]) for key in keys if key[:2] == group]
        found.append(_latencies(new, group, pings))

    alone = [
        row
        for series in found
        if series.verdict != "slower"
        for row in series.rows
        if row.steady and row.verdict == "slower" and row.ratio < 1 / (1 + significance.ONE_ROW)
    ]
    return Comparison(
        setup(old, new),
        tuple(found),
        tuple(alone),
        tuple(only_old),
        tuple(only_new),
        wrong=tuple(_wrong(row) for row in new.collectives if row.wrong),
        missing=_missing(old, new) if only_old else (),
        findings=_findings(old, new),
        early=not new.complete,
    )


def _missing(old: Results, new: Results) -> tuple[str, ...]:
    before = {one.what for one in old.lacks}
    return tuple(f"{one.what}: {one.why}" for one in new.lacks if one.what not in before)


def _findings(old: Results, new: Results) -> tuple[str, ...]:
    before = {_about(old, one) for one in old.findings}
    return tuple(
        one.text for one in new.findings if one.kind in OF_THE_NETWORK and _about(new, one) not in before
    )


def _about(results: Results, finding: Finding) -> Key:
    """Identify a finding across runs. Nodes count by number, because pods have other names in each run."""
    numbers = {one.name: one.node for one in results.nodes}
    return finding.kind, *(numbers.get(name, name) for name in finding.where)


def _by(rows: Iterable[Any], key: Callable[[Any], Key]) -> dict[Key, Any]:
    return {key(row): row for row in rows}


def _collective_key(row: Collective) -> Key:
    return row.network, row.collective, row.dtype, row.redop, row.root, row.in_place, row.size


def _collective_name(row: Collective) -> str:
    return f"{_collective_group(row)}, {size_text(row.size)}"


def _collective_group(row: Collective) -> str:
    op = f" {row.redop}" if row.redop not in ("", "none") else ""
    root = f" root {row.root}" if row.root > 0 else ""
    return f"{row.collective}{op} {row.dtype}{root}{' in place' if row.in_place else ''} over {row.network}"


def _wrong(row: Collective) -> str:
    return f"{_collective_name(row)}: {row.wrong} {'element' if row.wrong == 1 else 'elements'}"


def _collectives(pairs: list[tuple[Collective, Collective]]) -> list[ComparedSeries]:
    """Split the sizes into those whose time the rate decides, and the smaller ones."""
    best = max([1e-9, *(old.busbw for old, _ in pairs)])
    bound = min((old.size for old, _ in pairs if old.busbw >= _RATE_BOUND * best), default=0)
    found = []
    for kind, chosen in (
        ("large", [pair for pair in pairs if pair[0].size >= bound]),
        ("small", [pair for pair in pairs if pair[0].size < bound]),
    ):
        if chosen:
            rows = [_collective(old, new, "large" if kind == "large" else "small") for old, new in chosen]
            sizes = f"{size_text(chosen[0][0].size)} to {size_text(chosen[-1][0].size)}"
            name = f"{_collective_group(chosen[0][0])}, {sizes}"
            found.append(_series(name, "large" if kind == "large" else "small", rows))
    return found


def _collective(old: Collective, new: Collective, kind: Kind) -> ComparedRow:
    return _row(_collective_name(new), kind, _busbw(old), _busbw(new))


def _busbw(row: Collective) -> Figure:
    return Figure(median=row.busbw, low=row.busbw_low, high=row.busbw_high, count=row.time.count)


def _row(what: str, kind: Kind, old: Figure, new: Figure) -> ComparedRow:
    change = significance.row(old, new, significance.SMALL_CHANGE if kind == "small" else significance.CHANGE)
    return ComparedRow(what, kind, old, new, change.ratio, change.verdict, steady=kind == "large")


def _series(what: str, kind: Kind, rows: list[ComparedRow]) -> ComparedSeries:
    least = significance.SMALL_CHANGE if kind == "small" else significance.CHANGE
    change = significance.series([significance.row(row.old, row.new, least) for row in rows], least)
    return ComparedSeries(what, kind, tuple(rows), change.ratio, change.low, change.high, change.verdict)


def _tcp_key(row: Tcp) -> Key:
    return row.network, row.both, row.streams, row.source, row.target


def _tcp_group(group: Key) -> str:
    network, both, streams = group
    return f"raw TCP over {network}, {'both directions at once' if both else 'one direction'}, {_streams(streams)}"


def _tcp_name(results: Results, row: Tcp) -> str:
    return f"{_tcp_group(_tcp_key(row)[:3])}, {results.name(row.source)} → {results.name(row.target)}"


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


def _tcp(before: Results, results: Results, old: Tcp, new: Tcp) -> ComparedRow:
    row = _row(_tcp_name(results, new), "tcp", old.rate, new.rate)
    lines = before.line(old.network), results.line(new.network)
    return replace(row, steady=None not in lines and old.rate.median <= thresholds.ONE_STREAM * old.streams)


def _latency_key(row: Latency) -> Key:
    return row.network, row.bytes, row.source, row.target


def _latency_name(results: Results, row: Latency) -> str:
    return (
        f"round trip of {row.bytes} bytes over {row.network}, "
        f"{results.name(row.source)} → {results.name(row.target)}"
    )


def _latencies(results: Results, group: Key, pairs: list[tuple[Latency, Latency]]) -> ComparedSeries:
    """Compare round trips. The median moves with the scheduler; if the least round trip moved as much, it is the
    path."""
    rows, changes = [], []
    for old, new in pairs:
        change = _latency(old, new)
        changes.append(change)
        rows.append(
            ComparedRow(
                _latency_name(results, new),
                "latency",
                _times(old),
                _times(new),
                1 / change.ratio,
                change.verdict,
            )
        )
    whole = significance.series(changes, significance.SMALL_CHANGE)
    what = f"round trip of {group[1]} bytes over {group[0]}"
    return ComparedSeries(
        what, "latency", tuple(rows), 1 / whole.ratio, 1 / whole.high, 1 / whole.low, whole.verdict
    )


def _latency(old: Latency, new: Latency) -> Change:
    """Compare round trips as if they were rates, where less is worse. The interval lies between the change of the
    median and that of the least round trip."""
    middle, least = (max(a, 1e-9) / max(b, 1e-9) for a, b in ((old.p50, new.p50), (old.least, new.least)))
    low, high = min(middle, least), max(middle, least)
    factor = 1 + significance.SMALL_CHANGE
    if high < 1 / factor or low > factor:
        verdict: Verdict = "slower" if middle < 1 else "faster"
    else:
        verdict = "same" if 1 / factor <= middle <= factor else "unclear"
        low, high = min(low, 1.0), max(high, 1.0)
    return Change(middle, low, high, verdict)


def _times(row: Latency) -> Figure:
    return Figure(median=row.p50, low=row.least, high=row.p99, count=max(row.count, 1))
