"""The results from the findings' side: the backend's rows, by direction, and what is known of the processor."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from torchnet.bench.findings import thresholds
from torchnet.bench.results import Collective, Latency, Line, Results, Setup, Tcp
from torchnet.constants import is_rail

Direction = tuple[int, int]
"""Source and target, numbers of nodes."""


@dataclass(frozen=True)
class ResultIndex:
    """``rail``: the backend's interface that is looked at; empty for the first, which collectives are counted by."""

    results: Results
    setup: Setup
    rail: str = ""

    @property
    def network(self) -> str:
        return self.rail or self.setup.interface

    @cached_property
    def rails(self) -> list[str]:
        """The backend's other interfaces that were measured."""
        names = dict.fromkeys(row.network for row in self.results.tcp)
        return [name for name in names if is_rail(name) and name != self.setup.interface]

    @cached_property
    def line(self) -> Line | None:
        """None, too, where more went through than it can carry: then nobody knows it."""
        found = self.results.line(self.network)
        if not found or not found.ceiling:
            return None
        best = max((row.rate.median for row in self.tcp), default=0.0)
        return found if best <= thresholds.MORE_THAN_LINE * found.ceiling else None

    @cached_property
    def collectives(self) -> list[Collective]:
        return [row for row in self.results.collectives if row.network == self.network]

    @cached_property
    def tcp(self) -> list[Tcp]:
        return [row for row in self.results.tcp if row.network == self.network and row.source != row.target]

    @cached_property
    def latency(self) -> list[Latency]:
        return [row for row in self.results.latency if row.network == self.network]

    @cached_property
    def alone(self) -> dict[Direction, Tcp]:
        """The best row of each direction while the other one is idle; of both at once, where no other was measured."""
        return self._best([row for row in self.tcp if not row.both] or self.tcp)

    @cached_property
    def together(self) -> dict[Direction, Tcp]:
        return self._best([row for row in self.tcp if row.both])

    @cached_property
    def stalled(self) -> frozenset[Direction]:
        """Between whom small messages waited for a lost one to be sent again."""
        return frozenset(
            (row.source, row.target)
            for row in self.latency
            if row.p99 >= max(thresholds.STALLED, thresholds.STALLED_OVER * row.p50)
        )

    @cached_property
    def large(self) -> list[Collective]:
        """Rows of large messages, smallest first, whose time the rate decides and not the round trips."""
        carried = self.line.ceiling if self.line else max((row.rate.median for row in self.tcp), default=0.0)
        round_trip = statistics.median([row.p50 for row in self.latency]) if self.latency else 0.0
        least = carried * round_trip * thresholds.LARGE_ROUNDS * self.setup.ranks
        found = [row for row in self.collectives if row.size >= max(thresholds.LARGE, least)]
        return sorted(found, key=lambda row: row.size)

    def name(self, node: int) -> str:
        return self.results.name(node)

    def host(self, node: int) -> str:
        """The cluster's node that its pod ran on; empty where that is not known."""
        return next((one.host for one in self.results.nodes if one.node == node), "")

    def way(self, direction: Direction) -> str:
        return f"{self.name(direction[0])} → {self.name(direction[1])}"

    @staticmethod
    def _best(rows: Iterable[Tcp]) -> dict[Direction, Tcp]:
        found: dict[Direction, Tcp] = {}
        for row in rows:
            direction = row.source, row.target
            if direction not in found or row.rate.median > found[direction].rate.median:
                found[direction] = row
        return found


def processor(view: ResultIndex, row: Tcp | Collective, busy: float = thresholds.BUSY) -> str:
    """How it is known that the processor limits this row; empty where it does not, or where nothing is known."""
    core = core_of(view, row)
    if core is not None and core >= busy and (row.throttled or 0.0) <= thresholds.THROTTLED:
        return f"a {'stream' if isinstance(row, Tcp) else 'thread'} used {core * 100:.0f} % of one core"
    return machine(row, busy)


def machine(row: Tcp | Collective, busy: float = thresholds.BUSY) -> str:
    """The same, where the whole node has no more to give: more streams or threads would not help."""
    if (row.throttled or 0.0) > thresholds.THROTTLED:
        return f"a node's quota was used up in {(row.throttled or 0.0) * 100:.0f} % of its periods"
    idle = isinstance(row, Tcp) and row.core is not None and row.core < thresholds.IDLE_STREAM
    if (row.busy or 0.0) >= busy and not idle:
        return f"{(row.busy or 0.0) * 100:.0f} % of the busiest node's cores were in use"
    return ""


def core_of(view: ResultIndex, row: Tcp | Collective) -> float | None:
    """The busiest thread's share of one core, where it means work: NCCL's threads spin while they wait."""
    return row.core if isinstance(row, Tcp) or view.setup.backend == "gloo" else None


def fast_stream(row: Tcp | Collective) -> bool:
    """Whether raw TCP is so fast that its streams may be their cores' limit, and not the path's."""
    return isinstance(row, Tcp) and row.rate.median > thresholds.ONE_STREAM * row.streams


def limited(view: ResultIndex, row: Tcp | Collective) -> bool:
    """Whether the figures of this row move with whatever else the processor does."""
    busy = thresholds.BUSY if view.line else thresholds.BUSY_UNSHAPED
    return bool(processor(view, row, busy)) or fast_stream(row)
