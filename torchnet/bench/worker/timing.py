"""How long a call takes: batches of calls back to back, until their median is known well enough.

Ranks do not leave a barrier at the same moment, and each one's clock is its own. So a batch is timed from the rank's
own leaving of the barrier to its own end, and the slowest rank's time counts, over the calls: that is too much by at
most the barrier's skew, about the time of one small message. Batches are therefore at least BATCH seconds long, which
makes of it less than a hundredth; it is not subtracted, since nobody can tell it from a slow call. With a given number
of calls the batches are as long as that allows.

Every decision is made from figures that all ranks have alike (the slowest rank's), so that all make the same one
without another message.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist

from torchnet.bench.worker.stats import median

BATCH = 0.02  # seconds, at least, of calls back to back
LARGE = 0.2  # seconds of a call of which few have to do
_LEAST, _LEAST_LARGE, _LEAST_HUGE = 6, 3, 2  # batches: so many always; six have an interval of 95 %
_MOST_CALLS = 100_000
_GIVEN_BATCHES = 30  # at most, of a given number of calls


@dataclass(frozen=True)
class Rule:
    """When it is enough; see :class:`torchnet.bench.worker.plan.Plan`."""

    seconds: float
    narrow: float
    iters: int | None = None


@dataclass(frozen=True)
class Timed:
    """``times``: seconds of a call on the slowest rank, one for each batch; ``calls``: of all batches."""

    times: list[float]
    calls: int


def next_batch(call: float, done: int, rule: Rule) -> int:
    """How many calls the next batch has, 0 for no further one of a given number; ``call``: seconds of one, as far as
    is known; ``done``: calls until now."""
    if rule.iters is None:
        # Short of time, three batches must still fit.
        wanted = min(BATCH, rule.seconds / _LEAST_LARGE)
        return max(1, min(_MOST_CALLS, math.ceil(wanted / max(call, 1e-9))))
    left = rule.iters - done
    count = max(_LEAST, min(_GIVEN_BATCHES, int(rule.iters * call / BATCH)))
    return min(left, math.ceil(rule.iters / count))


def enough(times: list[float], spent: float, rule: Rule) -> bool:
    """``times``: of a call, by batch; ``spent``: seconds of all batches."""
    if rule.iters is not None or len(times) < _LEAST_HUGE:
        return False
    if spent >= rule.seconds:
        return len(times) >= _LEAST_LARGE or min(times) > rule.seconds
    least = _LEAST_LARGE if min(times) >= LARGE else _LEAST
    return len(times) >= least and median(times).spread <= rule.narrow


class Agreement:
    """What all ranks have alike: small figures by way of a Gloo group, which costs one message there and back."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self._barrier = torch.zeros(1)

    def most(self, *figures: float) -> list[float]:
        """The greatest of each on all ranks."""
        tensor = torch.tensor(figures, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, self._group)
        found: list[float] = tensor.tolist()
        return found

    def total(self, count: int) -> int:
        """The sum of the ranks' counts."""
        tensor = torch.tensor([count], dtype=torch.int64)
        dist.all_reduce(tensor, dist.ReduceOp.SUM, self._group)
        return int(tensor.item())

    def barrier(self) -> None:
        dist.all_reduce(self._barrier, group=self._group)


class Clock(Protocol):
    """Times what is done between the two calls, to its very end."""

    def begin(self) -> None: ...
    def end(self) -> float: ...


class HostClock:
    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self) -> float:
        return time.perf_counter() - self._began


class CudaClock:
    """By events in the stream: a call returns when it has been put there, long before it is done. The stream waits
    for NCCL's own before the second event."""

    def __init__(self) -> None:
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def begin(self) -> None:
        torch.cuda.synchronize()
        self._events[0].record()

    def end(self) -> float:
        self._events[1].record()
        self._events[1].synchronize()
        return self._events[0].elapsed_time(self._events[1]) / 1000  # of milliseconds


def warm_up(run: Callable[[], None], count: int, agreement: Agreement, clock: Clock) -> float:
    """Seconds of one of the ``count`` calls, on the slowest rank; of one call where none was asked for, as how many
    calls make a batch has to be known."""
    spent = []
    for _ in range(max(1, count)):
        agreement.barrier()
        clock.begin()
        run()
        spent.append(clock.end())
    # Not the first ones: they made connections and took memory.
    return agreement.most(min(spent))[0]


def measure(run: Callable[[], None], call: float, rule: Rule, agreement: Agreement, clock: Clock) -> Timed:
    """All ranks call it at once; ``call`` is what :func:`warm_up` said."""
    times: list[float] = []
    calls, spent = 0, 0.0
    collecting = gc.isenabled()
    gc.disable()
    try:
        while not enough(times, spent, rule) and (count := next_batch(call, calls, rule)):
            turns = range(count)
            agreement.barrier()
            clock.begin()
            for _ in turns:
                run()
            (took,) = agreement.most(clock.end())
            times.append(took / count)
            calls, spent = calls + count, spent + took
            call = median(times).value
    finally:
        if collecting:
            gc.enable()
    return Timed(times, calls)
