"""Turn the raw figures that rank 0 reports into results: medians, bandwidths, line rates and shares."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torchnet.bench import tcp_ceiling as lines
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
    ValidationError,
)
from torchnet.bench.worker import result_messages, stats
from torchnet.bench.worker.busbw import COLLECTIVES, factor
from torchnet.constants import is_rail
from torchnet.text import printable

_FACTORED = frozenset(COLLECTIVES)
_FIX = re.compile(r"\n\s*fix: ")
# What values of wrong types, sizes and kinds raise when used; pydantic's error is a ValueError.
_SENSELESS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_STAMPS = "net.ipv4.tcp_timestamps"
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class RunContext:
    """What the launcher knows about a run and the ranks do not.

    ``line`` and ``rate`` are the values of --line and --rate in bits per second.
    """

    on: Literal["local", "hosts", "kubernetes"]
    command: tuple[str, ...]
    look: tuple[str, ...]
    date: str
    version: str
    line: int | None = None
    rate: int | None = None
    compare: str = ""
    image: str = ""


@dataclass(frozen=True)
class RunEnding:
    """How the run ended.

    ``failure`` has the keys of :class:`torchnet.agent.events.Failure`; ``receipt`` is the job's receipt.
    """

    code: int
    receipt: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    unreadable: tuple[str, ...] = ()


def results(received: Sequence[result_messages.Message], context: RunContext, ending: RunEnding) -> Results:
    """Build the results from all messages that arrived, even if the benchmark did not finish.

    A message that makes no sense, for example from a worker of another version, is listed as not measured; the others
    are kept.
    """
    rows = _Rows()
    setup = next(iter(rows.of(_of(received, result_messages.Setup), lambda one: _setup(one, context))), None)
    nodes = _nodes(rows.of(_of(received, result_messages.Node), lambda one: Node(**vars(one))))
    networks = dict.fromkeys(name for node in nodes for name in node.addresses)
    found = [line for line in rows.of(networks, lambda name: _line(name, nodes, setup, context)) if line]
    by_name = {line.network: line for line in found}
    collectives = rows.of(
        [one for one in _of(received, result_messages.Collective) if one.times],
        lambda one: _collective(one, by_name.get(one.network), setup),
    )
    tcp = rows.of(
        [one for one in _of(received, result_messages.Tcp) if one.rates],
        lambda one: _tcp(one, by_name.get(one.network)),
    )
    latency = rows.of(_of(received, result_messages.Latency), lambda one: Latency(**vars(one)))
    lacking = rows.of(_of(received, result_messages.Lacks), lambda one: Lacking(what=one.what, why=one.why))
    lacking += [Lacking(what="a figure", why=why) for why in (*ending.unreadable, *rows.wrong)]
    done = any(isinstance(one, result_messages.Done) for one in received)
    failure = ending.failure or (ending.receipt or {}).get("failure")
    reason = "" if done and not ending.code else _reason(failure, ending)
    receipt = ending.receipt or {} if setup is None or not context.compare else {}
    return Results(
        torchnet=context.version,
        date=context.date,
        run=str((ending.receipt or {}).get("run_id", "")),
        setup=setup,
        nodes=nodes,
        lines=tuple(found),
        collectives=tuple(collectives),
        tcp=tuple(tcp),
        latency=tuple(latency),
        lacks=tuple(lacking),
        findings=_network(failure, context),
        backend_share=_share(receipt.get("backend_share")),
        backend_share_high=_share(receipt.get("backend_share_high")),
        proof=str(receipt.get("proof", "unknown")),
        complete=done and not ending.code,
        reason=reason,
        ended=str((failure or {}).get("kind", "")),
        exit_code=ending.code,
        look=context.look,
    )


def _share(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and 0 <= value <= 1 else None


def figure(figures: Sequence[float]) -> Figure:
    """Return the median of one or more figures with its interval."""
    found = stats.median(figures)
    return Figure(median=found.value, low=found.low, high=found.high, count=found.count)


@dataclass
class _Rows:
    """Converts messages one by one; ``wrong`` lists why some could not be converted."""

    wrong: list[str] = field(default_factory=list)

    def of(self, values: Iterable[T], convert: Callable[[T], R]) -> list[R]:
        found = []
        for one in values:
            try:
                found.append(convert(one))
            except _SENSELESS as error:
                what = f"the line of {one}" if isinstance(one, str) else f"{one}"
                self.wrong.append(f"{printable(what, 200)}: {_first(error)}")
        return found


def _first(error: Exception) -> str:
    """Describe the first problem in one line; pydantic reports each field on several lines."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
    return printable(f"{type(error).__name__}: {error}", 200)


def _of(received: Iterable[result_messages.Message], kind: type[T]) -> list[T]:
    return [one for one in received if isinstance(one, kind)]


def _nodes(nodes: list[Node]) -> tuple[Node, ...]:
    by_number = {one.node: one for one in nodes}
    return tuple(by_number[number] for number in sorted(by_number))


def _setup(setup: result_messages.Setup, context: RunContext) -> Setup:
    return Setup(
        **vars(setup), on=context.on, compare=context.compare, command=context.command, image=context.image
    )


def _line(name: str, nodes: tuple[Node, ...], setup: Setup | None, context: RunContext) -> Line | None:
    """Return None if the rate of the network is unknown, or if its packets cross no line."""
    known_rate = _rate(name, nodes, setup, context) if setup and setup.nodes > 1 else None
    mtus = [node.mtus[name] for node in nodes if node.mtus.get(name)]
    address = next((node.addresses[name] for node in nodes if node.addresses.get(name)), "")
    if known_rate is None or not mtus or not address:
        return None
    rate, known = known_rate
    family: Literal[4, 6] = 6 if ":" in address else 4
    # Both ends of a connection must enable timestamps (RFC 7323, 2.2): one node alone has none.
    stamps = len([node for node in nodes if node.sysctls.get(_STAMPS) != "0"]) > 1
    ceiling = lines.TcpCeiling(rate, min(mtus), family, known, stamps).ceiling
    return Line(
        network=name, rate_bits_per_s=rate, mtu=min(mtus), family=family, known=known, ceiling=ceiling
    )


def _rate(
    name: str, nodes: tuple[Node, ...], setup: Setup, context: RunContext
) -> tuple[float, lines.Known] | None:
    backend = name == setup.interface or is_rail(name)
    if backend and context.line is not None:
        return context.line, "told"
    if context.on == "local":
        # The speed that a local link reports means nothing: the link is memory.
        return (context.rate, "shaped") if backend and context.rate is not None else None
    speeds = [node.speeds.get(name, 0) for node in nodes]
    return (min(speeds), "interface") if speeds and min(speeds) > 0 else None


def _collective(one: result_messages.Collective, line: Line | None, setup: Setup | None) -> Collective:
    seconds, ranks, nodes = figure(one.times), setup.ranks if setup else 0, setup.nodes if setup else 0
    by = factor(one.collective, ranks) if one.collective in _FACTORED else 1.0

    def bandwidth(time: float) -> float:
        return one.size / time * by if time > 0 else 0.0

    values = {name: value for name, value in vars(one).items() if name != "times"}
    busbw = bandwidth(seconds.median)
    times = setup.lines_used if setup and one.network == setup.interface else 1
    ceiling = line.ceiling * times if line else None
    share = busbw * lines.line_factor(one.collective, ranks, nodes) / ceiling if ceiling else None
    return Collective(
        **values,
        time=seconds,
        algbw=one.size / seconds.median if seconds.median > 0 else 0.0,
        busbw=busbw,
        busbw_low=bandwidth(seconds.high),
        busbw_high=bandwidth(seconds.low),
        ceiling_share=share,
    )


def _tcp(one: result_messages.Tcp, line: Line | None) -> Tcp:
    rate = figure(one.rates)
    values = {name: value for name, value in vars(one).items() if name != "rates"}
    return Tcp(
        **values, rate=rate, ceiling_share=rate.median / line.ceiling if line and line.ceiling else None
    )


def _reason(failure: Mapping[str, Any] | None, ending: RunEnding) -> str:
    if failure:
        return _FIX.split(str(failure.get("text", "")))[0].strip() or "the job failed"
    reason = str((ending.receipt or {}).get("reason", ""))
    if reason and reason != "done":
        return reason
    return (
        f"the job ended with exit code {ending.code}"
        if ending.code
        else "rank 0 ended before the measurement was complete"
    )


def _network(failure: Mapping[str, Any] | None, context: RunContext) -> tuple[Finding, ...]:
    """Report a network that was refused before the start as a finding, in addition to the reason."""
    if not failure or failure.get("kind") != "network":
        return ()
    text, *fixes = _FIX.split(str(failure.get("text", "")))
    where = (str(failure["node"]),) if failure.get("node") else ()
    fix = " ".join(fixes[0].split()) if fixes else shlex.join(context.look)
    return (Finding(kind="network", text=text.strip(), fix=fix, where=where),)
