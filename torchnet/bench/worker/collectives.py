"""The collectives as torch has them, each as something to call again and again, with what must come out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Call:
    """``run`` is one call. ``fill`` makes the input anew; ``wrong`` counts elements of the output that are not as they
    must be."""

    run: Callable[[], None]
    fill: Callable[[], None]
    wrong: Callable[[], int]


Maker = Callable[["Setting"], Call]


@dataclass(frozen=True)
class Setting:
    """``elements``: of the message, a multiple of ``ranks`` where it is divided among them."""

    elements: int
    dtype: torch.dtype
    device: torch.device
    op: str
    root: int
    rank: int
    ranks: int
    group: Any
    in_place: bool = False

    def filled(self, rank: int, start: int = 0, count: int | None = None) -> torch.Tensor:
        """What the rank puts in: small whole numbers, which every dtype holds, and another row for each rank."""
        count = self.elements if count is None else count
        positions = torch.arange(start, start + count, device=self.device)
        return ((positions + rank) % 7 + 1).to(self.dtype)

    def reduced(self, start: int = 0, count: int | None = None) -> torch.Tensor:
        """What a reduction of all ranks' input gives."""
        rows = [self.filled(rank, start, count).double() for rank in range(self.ranks)]
        whole = torch.stack(rows)
        if self.op == "sum":
            return whole.sum(0).to(self.dtype)
        if self.op == "avg":
            return (whole.sum(0) / self.ranks).to(self.dtype)
        if self.op == "max":
            return whole.amax(0).to(self.dtype)
        if self.op == "min":
            return whole.amin(0).to(self.dtype)
        return whole.prod(0).to(self.dtype)
