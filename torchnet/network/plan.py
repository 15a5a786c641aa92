"""Whom each worker probes before the start: all others while that is cheap, a connected few above."""

from __future__ import annotations

from typing import Literal

Mode = Literal["auto", "full"]

# Up to here every ordered pair is probed: 64 workers make 4,032 of them, each worker 63.
ALL_PAIRS = 64


def peers(node_rank: int, nnodes: int, mode: Mode = "auto") -> tuple[int, ...]:
    """The node ranks that ``node_rank`` probes, in the order to do it; never itself, none twice.

    Up to 64 workers, or with ``full``: all others, the next rank first. In each step the whole job then forms one
    cyclic shift, so every worker is probed by one other at a time, instead of all beginning with rank 0.

    Above: the shifts by 1, 2, 4, … (ceil(log2 n) of them, as in a dissemination barrier) and rank 0, whom
    everybody talks to at the start. At most ceil(log2 n) + 1 peers each; the shift by 1 makes the graph strongly connected.

    Raises ValueError where ``node_rank`` is not within 0 … nnodes-1 or ``mode`` is unknown.
    """
    if mode not in ("auto", "full"):
        raise ValueError(f"mode is auto or full, not {mode!r}")
    if not 0 <= node_rank < nnodes:
        raise ValueError(f"node rank {node_rank} is not within 0 … {nnodes - 1}")
    if mode == "full" or nnodes <= ALL_PAIRS:
        return tuple((node_rank + shift) % nnodes for shift in range(1, nnodes))
    rounds = (nnodes - 1).bit_length()  # ceil(log2(nnodes))
    shifted = [(node_rank + (1 << k)) % nnodes for k in range(rounds)]
    if node_rank != 0 and 0 not in shifted:
        shifted.append(0)
    return tuple(shifted)


def paths(nnodes: int, mode: Mode = "auto") -> int:
    """How many ordered pairs the whole job probes, for each rail."""
    if mode == "full" or nnodes <= ALL_PAIRS:
        return nnodes * (nnodes - 1)
    return sum(len(peers(rank, nnodes, mode)) for rank in range(nnodes))
