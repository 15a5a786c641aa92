"""A benchmark's results: what ``--json`` writes, ``torchnet bench diff`` reads, and the source of
``results.schema.json``.

Within "torchnet.bench/1" fields may be added but never taken away or changed, and so may words to those that are listed
for a field. Fields and words that are not known here are kept, so that results of a newer torchnet can be read. Rates
are bytes per second and times seconds, unless a name says otherwise. ``python -m torchnet.bench.results`` writes the
schema anew; a test holds the two together.
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
    """A median of ``count`` figures with its 95 % interval; of fewer than six figures, the least and the most."""

    median: float
    low: float
    high: float
    count: Annotated[int, Field(ge=1)]

    @property
    def spread(self) -> float:
        """Half of the interval, over the median; 0 where that is 0."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


class Node(_Part):
    """One worker. Rates of interfaces are bits per second; ``cores`` are those that it may use."""

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
    """The cluster's node that a pod ran on; empty elsewhere."""


class Setup(_Part):
    """What was measured, and where."""

    on: Literal["local", "kubernetes"] | str
    """Known: local, kubernetes."""
    backend: str
    """gloo or nccl."""
    device: str
    ranks: Count
    nodes: Count
    interface: str
    """The backend's, which the collectives use."""
    compare: str = ""
    """The other interface that was measured, too."""
    versions: dict[str, str]
    environment: dict[str, str] = {}
    command: tuple[str, ...]
    """As it was typed: the way to do it again."""
    image: str = ""

    def backs(self, network: str) -> bool:
        """Whether it is the backend, or another rail of it that is not compared with the first."""
        return network == self.interface or (is_rail(network) and network != self.compare)

    @property
    def lines_used(self) -> int:
        """How many lines carry one collective."""
        return lines_used(self.backend, self.environment.get("NCCL_SOCKET_IFNAME", ""))


class Line(_Part):
    """What a network's line can carry."""

    network: str
    """The interface's name."""
    rate_bits_per_s: Rate
    mtu: Count
    family: Literal[4, 6]
    known: Literal["shaped", "interface", "told"] | str
    """Where the rate is from. Known: --rate, which shaped it; the interface; --line."""
    ceiling: Rate
    """Bytes of TCP payload per second and direction, after the headers at this MTU."""


class Collective(_Part):
    """One size of one collective over one network."""

    network: str
    """The interface's name."""
    collective: str
    """As torch.distributed calls it: all_reduce, all_gather, …"""
    size: Bytes
    """Bytes, as nccl-tests counts them: of the whole message."""
    elements: Count
    """How many of ``dtype`` these bytes are."""
    dtype: str
    """torch's word: float32, bfloat16, …"""
    redop: str
    """What a reduction did: sum, max, …; "none" where nothing is reduced."""
    root: int
    """-1 where there is none."""
    in_place: bool
    """Whether the result was written where the input had been."""
    time: Figure
    """Seconds of a call, a figure for each batch of calls: the mean of the ranks; of a broadcast and a reduce the
    slowest rank's."""
    calls: Count
    """Those that were timed, of all batches, without those that led in."""
    algbw: Rate
    """Bytes per second: the size over the median time."""
    busbw: Rate
    """Bytes per second: algbw times nccl-tests' factor of the collective, which is what a link carries, whatever the
    number of ranks."""
    busbw_low: Rate
    """The lower end of busbw's interval, in bytes per second: from the upper end of the time's."""
    busbw_high: Rate
    """The upper end, as above."""
    wrong: Count | None
    """Elements of all ranks that were not what they must be; null where nothing was checked."""
    ceiling_share: Share | None
    """What a node's line carried, over its ceiling; null where the line is not known. A line carries busbw, as it does
    in a ring, however many ranks a node has. Only of an all_to_all with p of n ranks in each node it carries
    p (n - p) / (n - 1) times busbw, since all ranks of a node send to all of the other nodes. With NCCL over several
    interfaces the ceiling is that of all of them."""
    formula_bytes: Rate
    """Bytes, no rate: what all ranks together had to send, in the calls that were timed and in those that led in. With
    NCCL, which has other ways within a node, only from node to node."""
    sockets_bytes: dict[str, Bytes] | None
    """Bytes that the TCP connections of these ranks sent in the same calls, by interface, summed over the nodes; "lo"
    is between ranks of one node. Null where they could not be counted, and where one node has all ranks."""
    interface_bytes: dict[str, Bytes] | None
    """Bytes that whole interfaces sent meanwhile, by name, summed over the nodes: with headers, and with what others
    sent. Null as above."""
    busy: Share | None = None
    """The share of the busiest node's cores that was in use, from 0 to 1, by whatever; null where it is not known."""
    throttled: Share | None = None
    """The share of the quota's periods in which it was used up, of the node with the most; 0 without a quota, null
    where it is not known."""
    core: Share | None = None
    """The share of one core that the busiest thread of all ranks used; null with NCCL, whose threads spin, and where
    too little time was timed to know."""


class Tcp(_Part):
    """Raw TCP from one node to another."""

    network: str
    """The interface's name, the same on both nodes."""
    source: Count
    """The sending node's number."""
    target: Count
    """The receiving node's number."""
    both: bool
    """While the other direction ran, too."""
    streams: Count
    """Connections at the same time; the rate is that of all of them."""
    rate: Figure
    """Bytes of payload per second, as they arrived, a figure for each slice of the time."""
    ceiling_share: Share | None
    """The rate over the line's ceiling; null where the line is not known."""
    repeated: Count
    """Segments that the sender sent again."""
    segments: Count
    """All that it sent, with those."""
    busy: Share | None = None
    """As of a collective, of the busier of the two nodes."""
    throttled: Share | None = None
    """As of a collective, of the busier of the two nodes."""
    core: Share | None = None
    """The share of one core that the busiest stream used, at its sender or its receiver; null where it is not known."""
    window_limited: Share | None = None
    """The share of the time in which the sender could not send, as the receiver's window or its own buffer was full
    (tcp_info); null where the kernel does not tell."""


class Latency(_Part):
    """Round trips of a small message between two nodes."""

    network: str
    """The interface's name."""
    source: Count
    """Number of the node that sends, waits for the answer and has the clock."""
    target: Count
    """Number of the node that answers."""
    bytes: Count
    """Of the message, each way."""
    count: Count
    """Round trips that were timed."""
    p50: Seconds
    """There and back: the median."""
    p99: Seconds
    """There and back: 99 of 100 took no longer."""
    least: Seconds
    """There and back: the shortest."""


class Lacking(_Part):
    """What was asked for and could not be measured."""

    what: str
    why: str


class Finding(_Part):
    """Something that is not as it should be. ``kind`` is for programs, ``text`` and ``fix`` for people."""

    kind: Literal[
        "slow-node", "slow-pair", "asymmetry", "mtu", "single-stream", "cpu-bound", "wrong-interface", "buffers",
        "loss", "bytes", "wrong-results", "slow-collective", "noise", "network", "lost",
    ] | str  # fmt: skip
    """One of these, or of a newer torchnet's."""
    text: str
    fix: str
    """The next command."""
    where: tuple[str, ...] = ()
    """Names of nodes, or of what else it is about."""


class Results(_Part):
    """Everything that one benchmark found out."""

    schema_: Literal["torchnet.bench/1"] = Field(default="torchnet.bench/1", alias="schema")
    torchnet: str
    date: str
    """RFC 3339, UTC."""
    run: str = ""
    setup: Setup | None
    """Null where nothing could be set up."""
    nodes: tuple[Node, ...] = ()
    lines: tuple[Line, ...] = ()
    collectives: tuple[Collective, ...] = ()
    tcp: tuple[Tcp, ...] = ()
    latency: tuple[Latency, ...] = ()
    lacks: tuple[Lacking, ...] = ()
    findings: tuple[Finding, ...] = ()
    backend_share: Share | None = None
    """Of the run's receipt, where nothing else was measured on purpose."""
    proof: Literal["measured", "inferred", "unknown"] | str = "unknown"
    """How the share is known. Known words: measured, inferred, unknown."""
    complete: bool
    """False: it ended early, and the figures are those until then."""
    reason: str = ""
    """Why it ended early."""
    ended: str = ""
    """By what kind of failure it ended early: script, network, lost, timeout, interrupted, internal, usage or cluster.
    Empty where it was none, or none is known."""
    exit_code: Count = 0
    look: tuple[str, ...] = ()
    """The command that looks at this network and measures nothing."""

    model_config = ConfigDict(
        frozen=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True, populate_by_name=True
    )

    def line(self, network: str) -> Line | None:
        return next((line for line in self.lines if line.network == network), None)

    def name(self, node: int) -> str:
        """The node's name; its number where the node was not heard."""
        return next((one.name for one in self.nodes if one.node == node), f"node {node}")


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the results."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        **Results.model_json_schema(mode="serialization", by_alias=True),
    }


def dump(results: Results) -> str:
    """The text of ``--json``."""
    return json.dumps(results.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False) + "\n"


def load(text: str) -> Results:
    """Raises ValidationError (a ValueError) for what are no results."""
    return Results.model_validate_json(text)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n")
