"""Messages from rank 0 to the launcher: one marked line of JSON on standard output for each figure, once it is known.

If something ends a benchmark early, the figures up to then have arrived. Figures are raw (times of batches, rates of
slices); the launcher evaluates them. A line stays well below the 16 KiB at which container runtimes split lines.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TextIO

MARK = "torchnet-bench "
FIGURES = 200  # the maximum in one message; of more, an even selection


@dataclass(frozen=True)
class Node:
    """Facts about one worker, sent before the measurement, and again at the end if they changed.

    ``addresses`` has the address on each measured network, by interface. ``mtus`` are bytes, by interface. ``speeds``
    are bits per second, by interface, if the driver reports them. ``sysctls`` (net.ipv4.tcp_rmem and others) have the
    values as the kernel prints them. ``cores`` is the number that the process may use, a control group's quota
    included.
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
    """The Kubernetes node that the pod runs on; empty elsewhere."""


@dataclass(frozen=True)
class Setup:
    """``interface`` is the backend's (of rail 0). ``versions`` has the versions of python, torch and nccl."""

    backend: str
    device: str
    ranks: int
    nodes: int
    interface: str
    versions: dict[str, str]
    environment: dict[str, str]
    """GLOO_*, NCCL_* and similar variables of rank 0."""


@dataclass(frozen=True)
class Collective:
    """One size of one collective over one network (its interface's name).

    Attributes:
        times: Seconds of a call, one figure for each batch: the mean of the ranks; for broadcast and reduce the slowest
            rank's.
        calls: Timed calls in all batches, without the lead-in calls.
        wrong: Wrong elements on all ranks; None if results were not checked.
        formula_bytes: The minimum that all ranks together have to send in the timed and the lead-in calls, ranks of one
            node to each other included; with NCCL, which has other transports within a node, only what a ring sends
            between nodes.
        sockets_bytes: What the measured group's TCP connections sent, by interface, "lo" between ranks of one node.
            Their sum compares with the formula. Gloo adds 36 bytes to each message, sends twice the formula in its
            reduce_scatter, and up to twice in its reduce.
        interface_bytes: What the interfaces sent, by interface, with headers and other programs' traffic. Both counts
            are summed over the nodes; None if they could not be read, and if all ranks are on one node.
        redop: "none" for collectives that do not reduce.
        root: -1 for collectives without a root.
        busy: The share of the busiest node's cores in use, 0 to 1; None if unknown.
        throttled: The share of quota periods in which the quota was exhausted, in the control group and on the node
            with the largest share.
        core: The share of one core that the busiest thread of all ranks used, 0 to 1; None with NCCL, whose threads
            spin, and if less than 0.1 s was timed.
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
    """Raw TCP from node ``source`` to node ``target``.

    Attributes:
        both: The other direction ran at the same time.
        rates: Bytes of payload per second, one figure for each slice of time.
        repeated: Segments that the sender retransmitted.
        segments: Segments that the sender sent, retransmissions included.
        busy, throttled: As in :class:`Collective`, for the busier of the two nodes.
        core: The busiest stream's share of one core, at the sender or at the receiver.
        window_limited: The share of the time in which the receiver's window or the sender's buffer limited the sender
            (tcp_info).
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
    """Round trips of ``bytes`` between two nodes, in seconds."""

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
    """What was requested and cannot be measured here, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Progress:
    """What is measured next."""

    text: str


@dataclass(frozen=True)
class Done:
    """All that was requested has been measured."""

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


def send(message: Message, stream: TextIO | None = None) -> None:
    """Print the message as one line in one write, so that no other thread's line mixes with it."""
    kind = type(message).__name__.lower()
    values = asdict(message)
    for name in ("times", "rates"):
        if name in values:
            values[name] = thin_out(values[name])
    text = json.dumps({"kind": kind, **values}, separators=(",", ":"), allow_nan=False)
    stream = stream or sys.stdout
    stream.write(f"{MARK}{text}\n")
    stream.flush()


def thin_out(figures: list[float]) -> list[float]:
    """Return up to FIGURES of the figures, evenly chosen, to six digits."""
    step = max(1.0, len(figures) / FIGURES)
    chosen = [figures[int(index * step)] for index in range(min(len(figures), FIGURES))]
    return [float(f"{one:.6g}") for one in chosen]


def read(line: str) -> Message | None:
    """Return the message in a line; None for any other line, or if its kind is unknown (from a newer worker).

    Raises:
        ValueError: The line is marked but cannot be read.
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
        raise ValueError(f"malformed line of the benchmark: {line[:200]!r}: {error}") from None
    return message
