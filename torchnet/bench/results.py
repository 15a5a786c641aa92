"""The results of a benchmark: what ``--json`` writes, ``torchnet bench diff`` reads, and the source of
``results.schema.json``.

Within "torchnet.bench/1" fields and listed values may be added, but never removed or changed. Unknown fields and values
are kept, so that the results of a newer torchnet can be read. Rates are bytes per second and times are seconds, unless
a name says otherwise. ``python -m torchnet.bench.results`` writes the schema; a test checks that it is current.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from torchnet.bench.tcp_ceiling import lines_used
from torchnet.constants import is_rail

__all__ = [
    "Collective", "Figure", "Finding", "Lacking", "Latency", "Line", "Node", "Results", "Setup", "Tcp",
    "ValidationError",
]  # fmt: skip

SCHEMA = "torchnet.bench/1"
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")

Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True)


class Figure(_Part):
    """The median of ``count`` figures with its 95 % interval; with fewer than six figures, their minimum and
    maximum."""

    median: float
    low: float
    high: float
    count: Annotated[int, Field(ge=1)]

    @property
    def spread(self) -> float:
        """Return half of the interval over the median; 0 if the median is 0."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


class Node(_Part):
    """One worker. Rates of interfaces are bits per second; ``cores`` is the number that it may use."""

    node: Count
    name: str
    addresses: dict[str, str]
    mtus: dict[str, Count]
    speeds: dict[str, Count] = {}
    sysctls: dict[str, str] = {}
    cores: float
    memory: Bytes
    cpu: str = ""
    kernel: str = ""
    host: str = ""
    """The Kubernetes node that the pod ran on; empty elsewhere."""


class Setup(_Part):
    """What was measured, and where."""

    on: Literal["local", "hosts", "kubernetes"] | str
    """Known: local, hosts, kubernetes."""
    backend: str
    """gloo or nccl."""
    device: str
    ranks: Count
    nodes: Count
    interface: str
    """The backend interface, which the collectives use."""
    compare: str = ""
    """The other interface that was measured for comparison."""
    versions: dict[str, str]
    environment: dict[str, str] = {}
    command: tuple[str, ...]
    """The command line as typed, to repeat the run."""
    image: str = ""

    @property
    def place(self) -> str:
        """Where the nodes were, in words."""
        return {"local": "on this machine", "hosts": "on their own hosts"}.get(self.on, "on Kubernetes")

    def is_backend(self, network: str) -> bool:
        """Return whether the network is the backend, or another rail of it that is not compared with the first."""
        return network == self.interface or (is_rail(network) and network != self.compare)

    @property
    def lines_used(self) -> int:
        """Return how many lines carry one collective."""
        return lines_used(self.backend, self.environment.get("NCCL_SOCKET_IFNAME", ""))


class Line(_Part):
    """What a network's line can carry."""

    network: str
    """The interface's name."""
    rate_bits_per_s: Rate
    mtu: Count
    family: Literal[4, 6]
    known: Literal["shaped", "interface", "told"] | str
    """The source of the rate. Known values: shaped (by --rate), interface (reported by it), told (set with --line)."""
    ceiling: Rate
    """Bytes of TCP payload per second and direction, after the headers at this MTU."""


class Collective(_Part):
    """One size of one collective over one network."""

    network: str
    """The interface's name."""
    collective: str
    """The name in torch.distributed: all_reduce, all_gather, …"""
    size: Bytes
    """Bytes of the whole message, counted as nccl-tests does."""
    elements: Count
    """The number of elements of ``dtype`` in these bytes."""
    dtype: str
    """The name of the torch dtype: float32, bfloat16, …"""
    redop: str
    """The reduction: sum, max, …; "none" for collectives that do not reduce."""
    root: int
    """The root rank; -1 for collectives without a root."""
    in_place: bool
    """Whether the result overwrites the input."""
    time: Figure
    """Seconds of a call, one figure for each batch of calls: the mean of the ranks; for broadcast and reduce the
    slowest rank's."""
    calls: Count
    """The number of timed calls in all batches, without the lead-in calls."""
    algbw: Rate
    """Bytes per second: the size over the median time."""
    busbw: Rate
    """Bytes per second: algbw times nccl-tests' factor of the collective. This is what a link carries, whatever the
    number of ranks."""
    busbw_low: Rate
    """The lower end of busbw's interval, in bytes per second, from the upper end of the time's interval."""
    busbw_high: Rate
    """The upper end of busbw's interval, in bytes per second."""
    wrong: Count | None
    """The number of wrong elements on all ranks; null if results were not checked."""
    ceiling_share: Share | None
    """What a node's line carried, over its ceiling; null if the line is not known. A line carries busbw, as in a ring,
    however many ranks a node has. Only in an all_to_all with p of n ranks on each node it carries p (n - p) / (n - 1)
    times busbw, because all ranks of a node send to all of the other nodes. With NCCL over several interfaces the
    ceiling is that of all of them."""
    formula_bytes: Rate
    """Bytes (not a rate) that all ranks together had to send in the timed and the lead-in calls. With NCCL, which has
    other transports within a node, only the bytes from node to node."""
    sockets_bytes: dict[str, Bytes] | None
    """Bytes that the TCP connections of these ranks sent in the same calls, by interface, summed over the nodes; "lo"
    is traffic between ranks of one node. Null if they could not be counted, and if one node has all ranks."""
    interface_bytes: dict[str, Bytes] | None
    """Bytes that whole interfaces sent in the same time, by name, summed over the nodes, including headers and traffic
    of other programs. Null under the same conditions."""
    busy: Share | None = None
    """The share of the busiest node's cores in use by any process, 0 to 1; null if unknown."""
    throttled: Share | None = None
    """The share of CPU quota periods in which the quota was exhausted, on the node with the largest share; 0 without a
    quota, null if unknown."""
    core: Share | None = None
    """The share of one core that the busiest thread of all ranks used; null with NCCL, whose threads spin, and if the
    timed calls were too short to know."""


class Tcp(_Part):
    """Raw TCP from one node to another."""

    network: str
    """The interface's name, the same on both nodes."""
    source: Count
    """The sending node's number."""
    target: Count
    """The receiving node's number."""
    both: bool
    """True if the other direction ran at the same time."""
    streams: Count
    """Simultaneous connections; the rate is their sum."""
    rate: Figure
    """Bytes of payload per second as received, one figure for each slice of time."""
    ceiling_share: Share | None
    """The rate over the line's ceiling; null if the line is not known."""
    repeated: Count
    """Segments that the sender retransmitted."""
    segments: Count
    """Segments that the sender sent, retransmissions included."""
    busy: Share | None = None
    """As in a collective, for the busier of the two nodes."""
    throttled: Share | None = None
    """As in a collective, for the busier of the two nodes."""
    core: Share | None = None
    """The share of one core that the busiest stream used, at its sender or its receiver; null if unknown."""
    window_limited: Share | None = None
    """The share of the time in which the sender could not send because the receiver's window or its own buffer was full
    (tcp_info); null if the kernel does not report it."""


class Latency(_Part):
    """Round trips of a small message between two nodes."""

    network: str
    """The interface's name."""
    source: Count
    """Number of the node that sends, waits for the answer and measures the time."""
    target: Count
    """Number of the node that answers."""
    bytes: Count
    """Size of the message in each direction."""
    count: Count
    """Number of timed round trips."""
    p50: Seconds
    """Median round-trip time."""
    p99: Seconds
    """99th percentile of the round-trip time."""
    least: Seconds
    """Shortest round-trip time."""


class Lacking(_Part):
    """What was requested and could not be measured."""

    what: str
    why: str


class Finding(_Part):
    """A problem. ``kind`` is for programs, ``text`` and ``fix`` are for people."""

    kind: Literal[
        "slow-node", "slow-pair", "asymmetry", "mtu", "single-stream", "cpu-bound", "wrong-interface", "buffers",
        "loss", "bytes", "wrong-results", "slow-collective", "noise", "network", "lost",
    ] | str  # fmt: skip
    """One of these, or a kind that a newer torchnet added."""
    text: str
    fix: str
    """The next command to run."""
    where: tuple[str, ...] = ()
    """Names of the nodes, interfaces or collectives that the finding is about."""


class Results(_Part):
    """The results of one benchmark."""

    schema_: Literal["torchnet.bench/1"] = Field(default="torchnet.bench/1", alias="schema")
    torchnet: str
    date: str
    """RFC 3339, UTC."""
    run: str = ""
    setup: Setup | None
    """Null if the benchmark did not get as far as its set-up."""
    nodes: tuple[Node, ...] = ()
    lines: tuple[Line, ...] = ()
    collectives: tuple[Collective, ...] = ()
    tcp: tuple[Tcp, ...] = ()
    latency: tuple[Latency, ...] = ()
    lacks: tuple[Lacking, ...] = ()
    findings: tuple[Finding, ...] = ()
    backend_share: Share | None = None
    """From the run's receipt, unless another network was measured on purpose: at least this."""
    backend_share_high: Share | None = None
    """The same: at most this. Null in receipts of earlier versions."""
    proof: Literal["measured", "inferred", "unknown"] | str = "unknown"
    """How the share is known. Known values: measured, inferred, unknown."""
    complete: bool
    """False if the run ended early; the results hold the figures up to then."""
    reason: str = ""
    """Why the run ended early."""
    ended: str = ""
    """The kind of failure that ended the run early: script, network, lost, timeout, interrupted, internal, usage or
    cluster. Empty if there was none, or if it is not known."""
    exit_code: Count = 0
    look: tuple[str, ...] = ()
    """The command that checks this network without a measurement."""

    model_config = ConfigDict(
        frozen=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True, populate_by_name=True
    )

    def line(self, network: str) -> Line | None:
        return next((line for line in self.lines if line.network == network), None)

    def name(self, node: int) -> str:
        """Return the node's name, or its number if the node did not report."""
        return next((one.name for one in self.nodes if one.node == node), f"node {node}")


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the results."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        **Results.model_json_schema(mode="serialization", by_alias=True),
    }


def dump(results: Results) -> str:
    """Return the text that ``--json`` writes."""
    return json.dumps(results.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False) + "\n"


def load(text: str) -> Results:
    """Read the results from their JSON text.

    Raises:
        ValidationError: The text does not hold results; a ValueError.
    """
    return Results.model_validate_json(text)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n")
