"""What the workers are asked to measure: JSON that the launcher writes among the script's arguments."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Pairs = Literal["none", "ring", "all"]


@dataclass(frozen=True)
class WorkerConfig:
    """Everything has been checked by the launcher. Times are seconds, sizes bytes.

    ``sizes``: of each collective's whole message, rising; the worker rounds them down to what can be divided among the
    ranks. ``seconds``: about so long for the timed calls of one size, two batches at least; what leads in comes on top.
    ``iters``: exactly so many timed calls instead. ``narrow``: half of the interval over the median, at which a size is
    known well enough. ``pairs``: whose raw TCP is measured: each node's with the next (ring), everybody's with
    everybody. ``compare``: an interface that is measured, too. ``memory``: the most bytes of tensors that a rank may
    hold; ranks with GPUs take no more than nine tenths of what is free on the fullest of them, in any case.
    """

    collectives: tuple[str, ...]
    sizes: tuple[int, ...]
    dtype: str = "float32"
    redop: str = "sum"
    root: int = 0
    backend: str = ""
    """gloo or nccl; "" for nccl where each process has a GPU of its own, else gloo."""
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


def encode(plan: WorkerConfig) -> str:
    return json.dumps(asdict(plan), separators=(",", ":"))


def decode(text: str) -> WorkerConfig:
    """What :func:`encode` wrote; fields of a newer launcher are passed over."""
    known = {field.name for field in fields(WorkerConfig)}
    given: dict[str, Any] = {}
    for name, value in json.loads(text).items():
        if name in known:
            given[name] = tuple(value) if isinstance(value, list) else value
    return WorkerConfig(**given)
