"""Which peers each worker probes before the start: all in small jobs, a connected few in larger ones."""

from __future__ import annotations

from typing import Literal

Mode = Literal["auto", "full"]

# Up to here every ordered pair is probed: 64 workers make 4,032 pairs, 63 per worker.
ALL_PAIRS = 64


def peers(node_rank: int, nnodes: int, mode: Mode = "auto") -> tuple[int, ...]:
    """Return the node ranks that ``node_rank`` probes, in order, without itself or duplicates.

    Up to 64 workers, or with ``full``: all others, the next rank first. Each step of the job is then a cyclic
    shift: one peer at a time probes each worker, instead of all probing rank 0 at once.

    Above 64: shifts by 1, 2, 4, … as in a dissemination barrier (ceil(log2 n) of them), and rank 0, to which
    all workers connect first. The shift by 1 alone makes the graph strongly connected.

    Raises:
        ValueError: ``node_rank`` is not within 0 … nnodes-1, or ``mode`` is unknown.
    """
    if not 0 <= node_rank < nnodes:
        raise ValueError(f"node rank {node_rank} is not within 0 … {nnodes - 1}")
    if all_pairs(nnodes, mode):
        return tuple((node_rank + shift) % nnodes for shift in range(1, nnodes))
    rounds = (nnodes - 1).bit_length()  # ceil(log2(nnodes))
    shifted = tuple((node_rank + (1 << k)) % nnodes for k in range(rounds))
    return shifted if node_rank == 0 or 0 in shifted else (*shifted, 0)


def paths(nnodes: int, mode: Mode = "auto") -> int:
    """Return how many ordered pairs the job probes on each rail."""
    if all_pairs(nnodes, mode):
        return nnodes * (nnodes - 1)
    return sum(len(peers(rank, nnodes, mode)) for rank in range(nnodes))


def all_pairs(nnodes: int, mode: Mode) -> bool:
    """Return whether each worker probes all others."""
    if mode not in ("auto", "full"):
        raise ValueError(f"mode must be auto or full, not {mode!r}")
    return mode == "full" or nnodes <= ALL_PAIRS
