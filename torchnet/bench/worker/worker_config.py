"""What the workers measure: JSON that the launcher passes as the script's argument."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Pairs = Literal["none", "ring", "all"]


@dataclass(frozen=True)
class WorkerConfig:
    """The launcher has validated everything. Times are in seconds, sizes in bytes.

    Attributes:
        sizes: Of each collective's whole message, ascending; the worker rounds them down to what can be divided among
            the ranks.
        seconds: Approximate time for the timed calls of one size, at least two batches, without the lead-in calls.
        iters: The exact number of timed calls instead.
        narrow: Half of the interval over the median at which a size is known well enough.
        pairs: The pairs for raw TCP: each node with the next (ring), or every two nodes (all).
        compare: An interface to measure as well.
        memory: The bytes of tensors that a rank may hold; ranks with GPUs use at most nine tenths of what is free on
            the fullest of them.
        by_host: Whether each host has made a plan of its own, so that rank 0's counts.
    """

    collectives: tuple[str, ...]
    sizes: tuple[int, ...]
    dtype: str = "float32"
    redop: str = "sum"
    root: int = 0
    backend: str = ""
    """gloo or nccl; "" for nccl if each process has a GPU of its own, else gloo."""
    warmup: int = 2
    iters: int | None = None
    seconds: float = 1.0
    narrow: float = 0.02
    check: bool = True
    pairs: Pairs = "ring"
    streams: int = 1
    tcp_seconds: float = 1.0
    pings: int = 500
    compare: str = ""
    memory: int = 1 << 40
    by_host: bool = False


def encode(plan: WorkerConfig) -> str:
    return json.dumps(asdict(plan), separators=(",", ":"))


def decode(text: str) -> WorkerConfig:
    """Read what :func:`encode` wrote; fields of a newer launcher are ignored."""
    known = {field.name for field in fields(WorkerConfig)}
    given: dict[str, Any] = {}
    for name, value in json.loads(text).items():
        if name in known:
            given[name] = tuple(value) if isinstance(value, list) else value
    return WorkerConfig(**given)
