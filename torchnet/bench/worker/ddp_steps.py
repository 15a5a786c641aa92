"""A training's steps per second over a group: DDP with a model that has the traffic of a real one.

Its gradients are as large as those of a real model, come layer by layer as in any backward pass, and travel meanwhile.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torchnet.bench.worker.rank_context import RankContext
from torchnet.training.ddp import tune

LEAST, MOST = 2, 50  # steps that are timed
_WARM = 2  # steps: after the first DDP puts its buckets in the order in which gradients really come
_WIDTH, _LAYERS, _BATCH = 2048, 3, 32
_COPIES = 5  # parameters, gradients, buckets, compressed ones and what the collective itself holds


def width_for(memory: int) -> int | None:
    """Of the model's layers, so that ``memory`` bytes hold it; None where nothing useful can."""
    width = _WIDTH
    while width * width * _LAYERS * 4 * _COPIES > memory:
        width //= 2
    return width if width >= 256 else None


def network(width: int) -> nn.Module:
    """Several layers: DDP sends the gradients of one while those of another are computed."""
    layers: list[nn.Module] = []
    for _ in range(_LAYERS):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 16))


class Trainer:
    """``count``: the steps that are timed. All ranks call its methods at once."""

    def __init__(self, place: RankContext, device: torch.device, width: int) -> None:
        self.device = device
        self._place, self._width = place, width
        self.count = LEAST

    def lasting(self, seconds: float, rate: float) -> None:
        """Time so many steps from now on that they take about so long; ``rate`` is steps per second, of rank 0."""
        steps = min(MOST, max(LEAST, int(rate * seconds + 1)))
        self.count = int(self._place.exchange(str(steps))[0])

    def rate(self, *, compress: str | None, **options: Any) -> float:
        """Steps per second with these arguments of :func:`torchnet.tune`."""
        torch.manual_seed(0)  # the same parameters everywhere: nothing has to be sent before
        model = network(self._width).to(self.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        if "init_sync" in inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters:
            options["init_sync"] = False
        parallel = tune(model, compress=compress, **options)
        images = torch.randn(_BATCH, self._width, device=self.device)

        def step() -> None:
            loss = parallel(images).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        self._timed(_WARM, step)
        return self._timed(self.count, step)

    def _timed(self, count: int, step: Callable[[], None]) -> float:
        self._place.barrier()
        began = time.perf_counter()
        for _ in range(count):
            step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return count / (time.perf_counter() - began)
