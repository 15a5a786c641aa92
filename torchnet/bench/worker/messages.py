"""What rank 0 tells the launcher: a marked line of JSON on its standard output for each figure, once it is known.

So whatever ends a benchmark early, the figures until then have arrived. Figures are raw (times of batches, rates of
slices): what is made of them is the launcher's business. A line stays well below the 16 KiB at which container runtimes
break lines.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TextIO

MARK = "torchnet-bench "
FIGURES = 200  # at most in one message: of more, evenly chosen ones


@dataclass(frozen=True)
class Node:
    """One worker's facts, before anything is measured; and once more in the end where they have changed since.

    ``addresses``: of each network that is measured, by interface. ``mtus``: bytes, by interface. ``speeds``: bits per
    second, by interface, where its driver tells one. ``sysctls``: net.ipv4.tcp_rmem and the like; the words as the
    kernel prints them. ``cores``: that the process may use, a cgroup's quota included.
    """

    node: int
    name: str
    addresses: dict[str, str]
    mtus: dict[str, int]
    speeds: dict[str, int]
    sysctls: dict[str, str]
    cores: float
    memory: int
    cpu: str
    kernel: str
    host: str = ""
    """The cluster's node that a pod runs on; empty elsewhere."""


@dataclass(frozen=True)
class Setup:
    """``interface`` is the backend's (of rail 0). ``versions``: python, torch, nccl, by name."""

    backend: str
    device: str
    ranks: int
    nodes: int
    interface: str
    versions: dict[str, str]
    environment: dict[str, str]
    """GLOO_*, NCCL_* and the like, as rank 0 has them."""


@dataclass(frozen=True)
class Collective:
    """One size of one collective over one network (its interface's name).

    ``times``: seconds of a call, one figure for each batch: the mean of the ranks; of a broadcast and a reduce the
    slowest rank's. ``calls``: timed ones, of all batches; others led in. ``wrong``: elements of all ranks that are not
    as they must be; None where nothing was checked. ``formula_bytes``: what all ranks together have to send at least in
    these calls and those that led in, ranks of one node to each other, too; with NCCL, which has other ways within a
    node, only what a ring sends from node to node. ``sockets_bytes``: what the measured group's TCP connections sent,
    by interface, "lo" between ranks of one node: their sum is to be held against the formula. Gloo sends 36 bytes more
    with each message, in its reduce_scatter twice the formula, and in its reduce up to twice. ``interface_bytes``: what
    the interfaces sent, by interface, headers and everybody else's included; both summed over the nodes, None where it
    could not be read, and where all ranks are on one node. ``redop`` is "none" where nothing is reduced, ``root`` -1
    where there is none. ``busy``: the share of the cores of the busiest node that was in use, 0 … 1, and None where it
    is not known. ``throttled``: the share of the quota's periods in which it was used up, of the control group and the
    node with the most. ``core``: the share of one core that the busiest thread of all ranks used, 0 … 1; None with
    NCCL, whose threads spin, and where less than 0.1 s was timed.
    """

    network: str
    collective: str
    size: int
    elements: int
    dtype: str
    redop: str
    root: int
    in_place: bool
    times: list[float]
    calls: int
    wrong: int | None
    formula_bytes: float
    sockets_bytes: dict[str, int] | None
    interface_bytes: dict[str, int] | None
    busy: float | None
    throttled: float | None = None
    core: float | None = None


@dataclass(frozen=True)
class Tcp:
    """Raw TCP from node ``source`` to node ``target``. ``both``: while the other direction ran, too.

    ``rates``: bytes of payload per second, one figure for each slice of the time. ``repeated``: segments that the
    sender had to send again, ``segments``: that it sent in all. ``busy``, ``throttled`` as above, of the busier of
    the two nodes. ``core``: the busiest stream's share of one core, at the sender or at the receiver.
    ``window_limited``: the share of the time for which the receiver's window or the sender's buffer held the sender
    up (tcp_info).
    """

    network: str
    source: int
    target: int
    both: bool
    streams: int
    rates: list[float]
    repeated: int
    segments: int
    busy: float | None
    throttled: float | None = None
    core: float | None = None
    window_limited: float | None = None


@dataclass(frozen=True)
class Latency:
    """There and back of ``bytes`` between two nodes; seconds."""

    network: str
    source: int
    target: int
    bytes: int
    count: int
    p50: float
    p99: float
    least: float


@dataclass(frozen=True)
class Lacks:
    """What was asked for and cannot be measured here, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Progress:
    """What is measured next."""

    text: str


@dataclass(frozen=True)
class Done:
    """Everything that was asked for has been measured."""

    seconds: float


Message = Node | Setup | Collective | Tcp | Latency | Lacks | Progress | Done
Kind = Literal["node", "setup", "collective", "tcp", "latency", "lacks", "progress", "done"]
KINDS: dict[str, type[Any]] = {
    "node": Node,
    "setup": Setup,
    "collective": Collective,
    "tcp": Tcp,
    "latency": Latency,
    "lacks": Lacks,
    "progress": Progress,
    "done": Done,
}


def say(message: Message, stream: TextIO | None = None) -> None:
    """Print it as one line, in one write, so that no other thread's line comes between."""
    kind = type(message).__name__.lower()
    values = asdict(message)
    for name in ("times", "rates"):
        if name in values:
            values[name] = thinned(values[name])
    text = json.dumps({"kind": kind, **values}, separators=(",", ":"), allow_nan=False)
    stream = stream or sys.stdout
    stream.write(f"{MARK}{text}\n")
    stream.flush()


def thinned(figures: list[float]) -> list[float]:
    """At most FIGURES of them, evenly chosen, to six digits."""
    step = max(1.0, len(figures) / FIGURES)
    chosen = [figures[int(index * step)] for index in range(min(len(figures), FIGURES))]
    return [float(f"{one:.6g}") for one in chosen]


def read(line: str) -> Message | None:
    """The message in a line; None for a line that is none, and for a kind that is not known (of newer workers).

    Raises:
        ValueError: it is marked, and cannot be read.
    """
    if not line.startswith(MARK):
        return None
    try:
        values = json.loads(line[len(MARK) :])
        kind = KINDS.get(values.pop("kind"))
        if kind is None:
            return None
        known = {field.name for field in fields(kind)}
        message: Message = kind(**{name: value for name, value in values.items() if name in known})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a line of the benchmark cannot be read: {line[:200]!r}: {error}") from None
    return message
