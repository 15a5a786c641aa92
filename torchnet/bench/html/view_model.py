"""Select what the page shows: rows that belong together, and the key figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from torchnet.bench.html.numbers import binary
from torchnet.bench.results import Collective, Latency, Results, Tcp

HEAT_MOST = 64  # nodes of a heat map; with more, only the table is shown


@dataclass(frozen=True)
class Group:
    """One collective over one network, by size; for sizes measured in both forms, the out-of-place row."""

    name: str
    network: str
    rows: tuple[Collective, ...]

    @property
    def best(self) -> Collective:
        return max(self.rows, key=lambda row: row.busbw)


@dataclass(frozen=True)
class Ratio:
    """The backend's busbw over the compared network's; ``low`` and ``high`` come from the ends of both intervals."""

    name: str
    backend: Collective
    other: Collective
    value: float
    low: float
    high: float


def kind(row: Collective) -> str:
    """Name one line of a plot: ``all_reduce, bfloat16, max``; common values are left out."""
    words = [row.collective]
    words += [row.dtype] if row.dtype not in ("", "float32") else []
    words += [row.redop] if row.redop not in ("", "none", "sum") else []
    words += [f"root {row.root}"] if row.root > 0 else []
    return ", ".join(words)


def kinds(results: Results) -> list[str]:
    """Return each kind once, in the order of measurement."""
    return list(dict.fromkeys(kind(row) for row in results.collectives))


def groups(results: Results, name: str) -> list[Group]:
    """Return the groups of one kind, one for each network, the backend first."""
    found = []
    for network in networks(results):
        rows = [row for row in results.collectives if row.network == network and kind(row) == name]
        rows.sort(key=lambda row: (row.size, row.in_place))
        if rows:
            firsts = tuple(next(same) for _, same in groupby(rows, key=lambda row: row.size))
            found.append(Group(name, network, firsts))
    return found


def networks(results: Results) -> list[str]:
    """Return all networks that were measured, the backend first."""
    rows: tuple[Collective | Tcp | Latency, ...] = (*results.collectives, *results.tcp, *results.latency)
    measured = [row.network for row in rows]
    first = [results.setup.interface] if results.setup else []
    return [one for one in dict.fromkeys(first + measured) if one in measured]


def role(results: Results, network: str) -> str:
    """``net1 (backend)``."""
    if results.setup is None:
        return network
    if results.setup.is_backend(network):
        return f"{network} (backend)"
    return f"{network} (compared)" if network == results.setup.compare else network


def ratios(results: Results) -> list[Ratio]:
    """Return the ratios by collective and size, where both networks were measured."""
    found = []
    setup = results.setup
    for name in kinds(results) if setup else []:
        by_network = {group.network: group.rows for group in groups(results, name)}
        compared = {row.size: row for row in by_network.get(setup.compare if setup else "", ())}
        for row in by_network.get(setup.interface if setup else "", ()):
            other = compared.get(row.size)
            if other and other.busbw and other.busbw_low and other.busbw_high:
                found.append(
                    Ratio(
                        name, row, other, row.busbw / other.busbw, row.busbw_low / other.busbw_high,
                        row.busbw_high / other.busbw_low,
                    )
                )  # fmt: skip
    return found


def against(results: Results) -> str:
    """``net1 against eth0``."""
    return f"{results.setup.interface} against {results.setup.compare}" if results.setup else ""


def one_way(results: Results, network: str) -> list[Tcp]:
    """Return one row for each direction while the other was idle, with the most streams that were tried."""
    rows = [row for row in results.tcp if row.network == network and not row.both]
    most = max((row.streams for row in rows), default=0)
    return [row for row in rows if row.streams == most]


def slowest(rows: Sequence[Tcp]) -> Tcp | None:
    return min(rows, key=lambda row: row.rate.median, default=None)


def slowest_answer(results: Results, network: str) -> Latency | None:
    rows = (row for row in results.latency if row.network == network)
    return max(rows, key=lambda row: row.p50, default=None)


def path(results: Results, row: Tcp | Latency) -> str:
    arrow = "→" if isinstance(row, Tcp) else "↔"
    return f"{results.name(row.source)} {arrow} {results.name(row.target)}"


def matrix(rows: Sequence[Tcp]) -> dict[tuple[int, int], float]:
    """Return bytes per second by source and target; empty if a table is enough: two nodes, or few of many pairs."""
    rates = {(row.source, row.target): row.rate.median for row in rows}
    nodes = {node for pair in rates for node in pair}
    dense = 2 * len(rates) >= len(nodes) * (len(nodes) - 1)
    return rates if 3 <= len(nodes) <= HEAT_MOST and dense else {}


def best(results: Results) -> Collective | None:
    """Return the row with the highest busbw on the backend, or on the first measured network if there is no backend."""
    first = networks(results)[:1]
    rows = (row for row in results.collectives if row.network in first)
    return max(rows, key=lambda row: row.busbw, default=None)


def where(row: Collective) -> str:
    return f"{kind(row)} of {binary(row.size)}"
