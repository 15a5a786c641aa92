"""How long a call takes: batches of calls back to back, until their median is known well enough.

Ranks do not leave a barrier at the same moment, and a network that was idle carries its first bytes faster than any
line: queues are empty, and the bucket of a shaper is full. So calls that are not timed lead in, LEAD seconds of them
and one at least, and the batches follow without a stop: a stretch. What a batch takes on one rank may begin and end a
little early or late; the ranks' mean counts, as in nccl-tests. Of a broadcast and a reduce the slowest rank's counts:
whoever only sends waits for nobody and runs ahead, as far as the sockets' buffers go, and so its batch seems shorter
than it is. Between two stretches the ranks agree on their figures.

Every decision is made from figures that all ranks have alike, so that all make the same one without another message.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist

from torchnet.bench.worker.stats import median

BATCH = 0.02  # seconds, at least, of calls back to back
LEAD = 0.016  # seconds: twice what the local networks' shaper lets through at once
LARGE = 0.2  # seconds of a call of which few have to do
_LEAST, _LEAST_LARGE, _LEAST_HUGE = 6, 3, 2  # batches: so many always; six have an interval of 95 %
_MOST_CALLS = 100_000
# Calls of a batch, as long as there is the time for so many batches: of nine the interval leaves out the least and the
# most, so that one hiccup does not widen it.
_CALLS, _BATCHES = 4, 10
_GIVEN_BATCHES = 30  # at most, of a given number of calls


@dataclass(frozen=True)
class Rule:
    """When it is enough; see :class:`torchnet.bench.worker.worker_config.WorkerConfig`."""

    seconds: float
    narrow: float
    iters: int | None = None


@dataclass(frozen=True)
class Timed:
    """``times``: seconds of a call, by batch: the ranks' mean, or the slowest rank's. ``calls``: of all batches.
    ``made``: with those that led in."""

    times: list[float]
    calls: int
    made: int


def stretch(call: float, calls: int, batches: int, spent: float, rule: Rule) -> list[int]:
    """How many calls the next batches have, which follow each other without a stop; [] where there is none.

    ``call``: seconds of one, as far as is known. ``calls``, ``batches``, ``spent``: those that there are, in seconds.
    """
    if rule.iters is not None:
        left = rule.iters - calls
        count = min(left, max(_LEAST, min(_GIVEN_BATCHES, int(rule.iters * call / BATCH))))
        return [left // count + (number < left % count) for number in range(count)]
    # Several calls, as ranks that wait for each other after each one are not what training does; and yet so many
    # batches that there is an interval. Short of time, three must still fit.
    wanted = min(max(BATCH, _CALLS * call), rule.seconds / _BATCHES)
    wanted = max(wanted, min(BATCH, rule.seconds / _LEAST_LARGE))
    each = max(1, min(_MOST_CALLS, math.ceil(wanted / max(call, 1e-9))))
    if not batches and call < LARGE:
        return [each]  # what the warm-up told of small ones may be far off
    if (missing := _least(call, rule) - batches) > 0:
        return [each] * missing
    fits = int((rule.seconds - spent) / max(each * call, 1e-9))
    return [each] * max(1, min(_BATCHES, fits))


def _least(call: float, rule: Rule) -> int:
    if call >= rule.seconds:
        return _LEAST_HUGE
    return _LEAST_LARGE if call >= LARGE else _LEAST


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

    def mean(self, figures: list[float]) -> list[float]:
        """Of each, over the ranks."""
        tensor = torch.tensor(figures, dtype=torch.float64)
        dist.all_reduce(tensor, group=self._group)
        found: list[float] = (tensor / dist.get_world_size(self._group)).tolist()
        return found

    def total(self, count: int) -> int:
        """The sum of the ranks' counts."""
        tensor = torch.tensor([count], dtype=torch.int64)
        dist.all_reduce(tensor, dist.ReduceOp.SUM, self._group)
        return int(tensor.item())

    def barrier(self) -> None:
        dist.all_reduce(self._barrier, group=self._group)


class Clock(Protocol):
    """Times what is done between two of its calls, to its very end."""

    def begin(self) -> None: ...

    def lap(self) -> None: ...

    def laps(self) -> list[float]:
        """Seconds from the beginning to the first lap, from there to the second, and so on."""
        ...


class HostClock:
    def begin(self) -> None:
        self._marks = [time.perf_counter()]

    def lap(self) -> None:
        self._marks.append(time.perf_counter())

    def laps(self) -> list[float]:
        return [then - now for now, then in itertools.pairwise(self._marks)]


class CudaClock:
    """By events in the stream: a call returns when it has been put there, long before it is done. The stream waits
    for NCCL's own before the next event."""

    def begin(self) -> None:
        self._events: list[torch.cuda.Event] = []
        self.lap()

    def lap(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def laps(self) -> list[float]:
        self._events[-1].synchronize()
        pairs = itertools.pairwise(self._events)
        return [now.elapsed_time(then) / 1000 for now, then in pairs]  # of milliseconds


def warm_up(run: Callable[[], None], count: int, agreement: Agreement, clock: Clock) -> float:
    """Seconds of one of the ``count`` calls, on the slowest rank; of one call where none was asked for, as how many
    calls make a batch has to be known."""
    spent = []
    for _ in range(max(1, count)):
        agreement.barrier()
        clock.begin()
        run()
        clock.lap()
        spent += clock.laps()
    # Not the first ones: they made connections and took memory.
    return agreement.most(min(spent))[0]


def measure(
    run: Callable[[], None],
    call: float,
    rule: Rule,
    agreement: Agreement,
    clock: Clock,
    *,
    slowest: bool = False,
) -> Timed:
    """All ranks call it at once; ``call`` is what :func:`warm_up` said. ``slowest``: that rank's time counts, and not
    the mean: of calls of which a rank need not wait for the others."""
    times: list[float] = []
    calls, made, spent = 0, 0, 0.0
    collecting = gc.isenabled()
    gc.disable()
    try:
        while not enough(times, spent, rule) and (counts := stretch(call, calls, len(times), spent, rule)):
            lead = max(1, min(_MOST_CALLS, math.ceil(LEAD / max(call, 1e-9))))
            agreement.barrier()
            for _ in range(lead):
                run()
            clock.begin()
            for count in counts:
                for _ in range(count):
                    run()
                clock.lap()
            laps = clock.laps()
            took = agreement.most(*laps) if slowest else agreement.mean(laps)
            times += [one / count for one, count in zip(took, counts, strict=True)]
            calls, spent = calls + sum(counts), spent + sum(took)
            made += lead + sum(counts)
            call = median(times).value
    finally:
        if collecting:
            gc.enable()
    return Timed(times, calls, made)
