"""The results as findings read them: the backend's rows by direction, and what is known about the processor."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from torchnet.bench.findings import thresholds
from torchnet.bench.results import Collective, Latency, Line, Results, Setup, Tcp
from torchnet.constants import is_rail

Direction = tuple[int, int]
"""Numbers of the source and the target node."""


@dataclass(frozen=True)
class ResultIndex:
    """``rail`` is the backend's interface to look at; empty for the first, which the collectives use."""

    results: Results
    setup: Setup
    rail: str = ""

    @property
    def network(self) -> str:
        return self.rail or self.setup.interface

    @cached_property
    def rails(self) -> list[str]:
        """Return the backend's other interfaces that were measured."""
        names = dict.fromkeys(row.network for row in self.results.tcp)
        return [name for name in names if is_rail(name) and name != self.setup.interface]

    @cached_property
    def line(self) -> Line | None:
        """Return the line, or None if it is unknown. A line is unknown, too, if raw TCP exceeded what it can carry."""
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
        """Return the best row of each direction while the other was idle; without such rows, of both directions at
        once."""
        return self._best([row for row in self.tcp if not row.both] or self.tcp)

    @cached_property
    def together(self) -> dict[Direction, Tcp]:
        return self._best([row for row in self.tcp if row.both])

    @cached_property
    def stalled(self) -> frozenset[Direction]:
        """Return the directions in which small messages waited for a retransmission."""
        return frozenset(
            (row.source, row.target)
            for row in self.latency
            if row.p99 >= max(thresholds.STALLED, thresholds.STALLED_OVER * row.p50)
        )

    @cached_property
    def large(self) -> list[Collective]:
        """Return the rows of large messages, smallest first: their time depends on the rate, not on round trips."""
        carried = self.line.ceiling if self.line else max((row.rate.median for row in self.tcp), default=0.0)
        round_trip = statistics.median([row.p50 for row in self.latency]) if self.latency else 0.0
        least = carried * round_trip * thresholds.LARGE_ROUNDS * self.setup.ranks
        found = [row for row in self.collectives if row.size >= max(thresholds.LARGE, least)]
        return sorted(found, key=lambda row: row.size)

    def name(self, node: int) -> str:
        return self.results.name(node)

    def host(self, node: int) -> str:
        """Return the Kubernetes node that the pod ran on; empty if unknown."""
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


def cpu_limit(view: ResultIndex, row: Tcp | Collective, busy: float = thresholds.BUSY) -> str:
    """Return the evidence that the processor limits this row; empty if it does not, or if nothing is known."""
    core = core_of(view, row)
    if core is not None and core >= busy and (row.throttled or 0.0) <= thresholds.THROTTLED:
        return f"a {'stream' if isinstance(row, Tcp) else 'thread'} used {core * 100:.0f} % of one core"
    return node_cpu_limit(row, busy)


def node_cpu_limit(row: Tcp | Collective, busy: float = thresholds.BUSY) -> str:
    """Return the evidence that the whole node is at its limit, so that more streams or threads would not help."""
    if (row.throttled or 0.0) > thresholds.THROTTLED:
        return f"a node exhausted its CPU quota in {(row.throttled or 0.0) * 100:.0f} % of the periods"
    idle = isinstance(row, Tcp) and row.core is not None and row.core < thresholds.IDLE_STREAM
    if (row.busy or 0.0) >= busy and not idle:
        return f"{(row.busy or 0.0) * 100:.0f} % of the busiest node's cores were in use"
    return ""


def core_of(view: ResultIndex, row: Tcp | Collective) -> float | None:
    """Return the busiest thread's share of one core, or None for NCCL, whose threads spin while they wait."""
    return row.core if isinstance(row, Tcp) or view.setup.backend == "gloo" else None


def fast_stream(row: Tcp | Collective) -> bool:
    """Return whether raw TCP is so fast that its cores may limit the streams, and not the path."""
    return isinstance(row, Tcp) and row.rate.median > thresholds.ONE_STREAM * row.streams


def varies_with_load(view: ResultIndex, row: Tcp | Collective) -> bool:
    """Return whether other load on the processor changes the figures of this row."""
    busy = thresholds.BUSY if view.line else thresholds.BUSY_UNSHAPED
    return bool(cpu_limit(view, row, busy)) or fast_stream(row)
