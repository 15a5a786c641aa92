"""The collectives, and the bytes that each moves: nccl-tests' factors from algorithm to bus bandwidth.

algbw is S / t. busbw is algbw times a factor, so that it compares with the line's rate for any number of ranks. S is
the size of the whole data: for all_gather what each rank has at the end, for reduce_scatter and all_to_all what each
rank has at the start.

Source: nccl-tests' doc/PERFORMANCE.md, and the …GetBw functions in its src/.
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
    """Return busbw over algbw; 0.0 for a single rank, which moves nothing."""
    if ranks < 2:
        return 0.0
    if collective == "all_reduce":
        return 2 * (ranks - 1) / ranks
    if collective in ("all_gather", "reduce_scatter", "all_to_all"):
        return (ranks - 1) / ranks
    return 1.0


def least_bytes(collective: Collective, size: int, ranks: int) -> float:
    """Return the minimum number of bytes that all ranks together send in one call of ``size`` bytes."""
    if ranks < 2:
        return 0.0
    if collective == "all_reduce":
        return 2.0 * (ranks - 1) * size
    # A ring of pairs: each rank sends once.
    if collective == "send_recv":
        return float(ranks * size)
    return float((ranks - 1) * size)


def crossing_share(collective: Collective, ranks: int, nodes: int) -> float:
    """Return the share of :func:`least_bytes` that crosses between nodes if consecutive ranks share nodes.

    A ring leaves each node once; the chain of a broadcast or a reduce does not return to its start; in an all-to-all
    the pairs of different nodes count. This is the minimum: a chain whose root is in the middle of its node's ranks
    crosses once more.
    """
    if nodes >= ranks:
        return 1.0
    if collective == "all_to_all":
        return (ranks - ranks / nodes) / (ranks - 1)
    if collective in ("broadcast", "reduce"):
        return (nodes - 1) / (ranks - 1)
    return nodes / ranks if nodes > 1 else 0.0
