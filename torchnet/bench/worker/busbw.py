"""The collectives, and what each of them moves: nccl-tests' factors from algorithm to bus bandwidth.

algbw is S / t. busbw is algbw times a factor, so that it can be held against the line's rate whatever the number of
ranks is. S is the whole of the data: of an all_gather what each rank has in the end, of a reduce_scatter and an
all_to_all what each rank has in the beginning.

Source: nccl-tests' doc/PERFORMANCE.md, and the …GetBw functions of its src/.
"""

from __future__ import annotations

from typing import Literal, get_args

Collective = Literal[
    "all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all", "send_recv"
]
COLLECTIVES: tuple[Collective, ...] = get_args(Collective)
REDUCING: tuple[Collective, ...] = ("all_reduce", "reduce_scatter", "reduce")
ROOTED: tuple[Collective, ...] = ("broadcast", "reduce")


def factor(collective: Collective, ranks: int) -> float:
    """busbw over algbw; 0.0 for a single rank, with which nothing moves."""
    if ranks < 2:
        return 0.0
    if collective == "all_reduce":
        return 2 * (ranks - 1) / ranks
    if collective in ("all_gather", "reduce_scatter", "all_to_all"):
        return (ranks - 1) / ranks
    return 1.0


def sent(collective: Collective, size: int, ranks: int) -> float:
    """The bytes that all ranks together have to send at least, for one call of ``size`` bytes."""
    if ranks < 2:
        return 0.0
    if collective == "all_reduce":
        return 2.0 * (ranks - 1) * size
    # A ring of pairs: each rank sends once.
    if collective == "send_recv":
        return float(ranks * size)
    return float((ranks - 1) * size)


def crossing(collective: Collective, ranks: int, nodes: int) -> float:
    """The share of :func:`sent` that goes from node to node where neighbours in rank share nodes: a ring leaves each
    node once, the chain of a broadcast or a reduce does not come back to where it began, and of all pairs those count
    that are not of one node. It is the least: a chain whose root is amid its node's ranks crosses once more."""
    if nodes >= ranks:
        return 1.0
    if collective == "all_to_all":
        return (ranks - ranks / nodes) / (ranks - 1)
    if collective in ("broadcast", "reduce"):
        return (nodes - 1) / (ranks - 1)
    return nodes / ranks if nodes > 1 else 0.0
