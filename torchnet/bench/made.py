"""From the figures as the ranks say them to results: medians, bandwidths, lines and shares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torchnet.bench import line as lines
from torchnet.bench.results import (
    Collective,
    Figure,
    Finding,
    Lacking,
    Latency,
    Line,
    Node,
    Results,
    Setup,
    Tcp,
)
from torchnet.bench.worker import messages, stats
from torchnet.bench.worker.factors import COLLECTIVES, factor

_FACTORED = frozenset(COLLECTIVES)
_FIX = re.compile(r"\n\s*fix: ")
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What the ranks do not know. ``line``, ``rate``: bits per second, of --line and of --rate."""

    on: Literal["local", "kubernetes"]
    command: tuple[str, ...]
    date: str
    version: str
    line: int | None = None
    rate: int | None = None
    compare: str = ""
    image: str = ""
    tune: bool = False


@dataclass(frozen=True)
class Ending:
    """How it ended. ``failure`` has the keys of torchnet.agent.report.Failure; ``receipt`` is the job's."""

    code: int
    receipt: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    unreadable: tuple[str, ...] = ()


def results(said: Sequence[messages.Message], context: Context, ending: Ending) -> Results:
    """All that came, whether the benchmark came to its end or not."""
    setup = next(iter(_of(said, messages.Setup)), None)
    nodes = _nodes(_of(said, messages.Node))
    found = _lines(nodes, setup, context)
    by_name = {line.network: line for line in found}
    done = any(isinstance(one, messages.Done) for one in said)
    failure = ending.failure or (ending.receipt or {}).get("failure")
    reason = "" if done and not ending.code else _reason(failure, ending)
    lacking = [Lacking(what=one.what, why=one.why) for one in _of(said, messages.Lacks)]
    lacking += [Lacking(what="a figure", why=why) for why in ending.unreadable]
    apart = setup is None or (not context.compare and not context.tune)
    receipt = ending.receipt if apart and ending.receipt else {}
    ranks = setup.ranks if setup else 0
    return Results(
        torchnet=context.version,
        date=context.date,
        run=str((ending.receipt or {}).get("run_id", "")),
        setup=_setup(setup, context) if setup else None,
        nodes=nodes,
        lines=found,
        collectives=tuple(
            _collective(one, ranks, by_name.get(one.network), setup)
            for one in _of(said, messages.Collective)
            if one.times
        ),
        tcp=tuple(_tcp(one, by_name.get(one.network)) for one in _of(said, messages.Tcp) if one.rates),
        latency=tuple(Latency(**vars(one)) for one in _of(said, messages.Latency)),
        lacks=tuple(lacking),
        findings=_network(failure),
        backend_share=receipt.get("backend_share"),
        proof=receipt.get("proof", "unknown"),
        complete=done and not ending.code,
        reason=reason,
        exit_code=ending.code,
    )


def figure(figures: Sequence[float]) -> Figure:
    """The median of at least one figure."""
    found = stats.median(figures)
    return Figure(median=found.value, low=found.low, high=found.high, count=found.count)


def _of(said: Iterable[messages.Message], kind: type[T]) -> list[T]:
    return [one for one in said if isinstance(one, kind)]


def _nodes(told: list[messages.Node]) -> tuple[Node, ...]:
    by_number = {one.node: one for one in told}
    return tuple(Node(**vars(by_number[number])) for number in sorted(by_number))


def _setup(setup: messages.Setup, context: Context) -> Setup:
    return Setup(
        **vars(setup), on=context.on, compare=context.compare, command=context.command, image=context.image
    )


def _lines(nodes: tuple[Node, ...], setup: messages.Setup | None, context: Context) -> tuple[Line, ...]:
    """Of each network whose rate somebody tells, and whose packets cross it."""
    if setup is None or setup.nodes < 2:
        return ()
    found = []
    for name in dict.fromkeys(network for node in nodes for network in node.addresses):
        told = _rate(name, nodes, setup, context)
        mtus = [node.mtus[name] for node in nodes if node.mtus.get(name)]
        if told is None or not mtus:
            continue
        rate, known = told
        address = next(node.addresses[name] for node in nodes if node.addresses.get(name))
        family: Literal[4, 6] = 6 if ":" in address else 4
        ceiling = lines.Line(rate, min(mtus), family, known).ceiling
        found.append(
            Line(
                network=name, rate_bits_per_s=rate, mtu=min(mtus), family=family, known=known, ceiling=ceiling
            )
        )
    return tuple(found)


def _rate(
    name: str, nodes: tuple[Node, ...], setup: messages.Setup, context: Context
) -> tuple[float, lines.Known] | None:
    backend = name == setup.interface
    if backend and context.line is not None:
        return context.line, "told"
    if context.on == "local":
        # A local link's own figure means nothing: it is memory.
        return (context.rate, "shaped") if backend and context.rate is not None else None
    speeds = [node.speeds.get(name, 0) for node in nodes]
    return (min(speeds), "interface") if speeds and min(speeds) > 0 else None


def _collective(
    one: messages.Collective, ranks: int, line: Line | None, setup: messages.Setup | None
) -> Collective:
    seconds = figure(one.times)
    by = factor(one.collective, ranks) if one.collective in _FACTORED else 1.0

    def bandwidth(time: float) -> float:
        return one.size / time * by if time > 0 else 0.0

    values = {name: value for name, value in vars(one).items() if name != "times"}
    busbw = bandwidth(seconds.median)
    ceiling = line.ceiling * _rails(one.network, setup) if line else None
    return Collective(
        **values,
        time=seconds,
        algbw=one.size / seconds.median if seconds.median > 0 else 0.0,
        busbw=busbw,
        busbw_low=bandwidth(seconds.high),
        busbw_high=bandwidth(seconds.low),
        ceiling_share=busbw / ceiling if ceiling else None,
    )


def _rails(network: str, setup: messages.Setup | None) -> int:
    """How many lines carry one collective: NCCL spreads it over its interfaces, Gloo takes them in turn."""
    if setup is None or setup.backend != "nccl" or network != setup.interface:
        return 1
    names = setup.environment.get("NCCL_SOCKET_IFNAME", "").lstrip("=^").split(",")
    return max(1, len([name for name in names if name]))


def _tcp(one: messages.Tcp, line: Line | None) -> Tcp:
    rate = figure(one.rates)
    values = {name: value for name, value in vars(one).items() if name != "rates"}
    return Tcp(
        **values, rate=rate, ceiling_share=rate.median / line.ceiling if line and line.ceiling else None
    )


def _reason(failure: Mapping[str, Any] | None, ending: Ending) -> str:
    if failure:
        return _FIX.split(str(failure.get("text", "")))[0].strip() or "it failed"
    told = str((ending.receipt or {}).get("reason", ""))
    if told and told != "done":
        return told
    return f"it ended with exit code {ending.code}" if ending.code else "rank 0 ended before all was measured"


def _network(failure: Mapping[str, Any] | None) -> tuple[Finding, ...]:
    """A network that was refused before the start is a finding, not only a reason."""
    if not failure or failure.get("kind") != "network":
        return ()
    text, *fixes = _FIX.split(str(failure.get("text", "")))
    where = (str(failure["node"]),) if failure.get("node") else ()
    fix = " ".join(fixes[0].split()) if fixes else "torchnet verify"
    return (Finding(kind="network", text=text.strip(), fix=fix, where=where),)
