"""Time a call: batches of consecutive calls, until their median is known well enough.

Ranks do not leave a barrier at the same moment, and an idle network carries its first bytes faster than any line,
because queues are empty and a shaper's bucket is full. So calls that are not timed lead in, for LEAD seconds and at
least one, and the batches follow without a pause; this is a stretch. On one rank a batch may start and end a little
early or late, so the ranks' mean counts, as in nccl-tests. For broadcast and reduce the slowest rank counts: a rank
that only sends waits for nobody and runs ahead as far as the sockets' buffers allow, so that its batch seems shorter
than it is. Between two stretches the ranks agree on their figures.

Every decision uses figures that all ranks share, so that all decide the same without another message.
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

BATCH = 0.02  # minimum seconds of consecutive calls
LEAD = 0.016  # seconds: twice the burst of the local networks' shaper
LARGE = 0.2  # seconds of a call from which a few calls are enough
_LEAST, _LEAST_LARGE, _LEAST_HUGE = 6, 3, 2  # minimum batches; six give an interval of 95 %
_MOST_CALLS = 100_000
# Calls in a batch, and batches to leave time for. From nine batches on, the interval leaves out the minimum and the
# maximum, so that a single hiccup does not widen it.
_CALLS, _BATCHES = 4, 10
_GIVEN_BATCHES = 30  # maximum for a fixed number of calls


@dataclass(frozen=True)
class Rule:
    """When to stop; see :class:`torchnet.bench.worker.worker_config.WorkerConfig`."""

    seconds: float
    narrow: float
    iters: int | None = None


@dataclass(frozen=True)
class Timed:
    """``times`` are seconds of a call by batch, the ranks' mean or the slowest rank's. ``calls`` are those of all
    batches; ``all_calls`` includes the lead-in calls."""

    times: list[float]
    calls: int
    all_calls: int


def next_batches(call: float, calls: int, batches: int, spent: float, rule: Rule) -> list[int]:
    """Return the number of calls of each of the next batches, which follow each other without a pause; [] if there is
    no more.

    ``call`` is the duration of one call in seconds, as far as known. ``calls``, ``batches`` and ``spent`` (in seconds)
    count what has been measured.
    """
    if rule.iters is not None:
        left = rule.iters - calls
        count = min(left, max(_LEAST, min(_GIVEN_BATCHES, int(rule.iters * call / BATCH))))
        return [left // count + (number < left % count) for number in range(count)]
    # Several calls in a batch, because training does not synchronise the ranks after each call; but enough batches for
    # an interval. If time is short, three must still fit.
    wanted = min(max(BATCH, _CALLS * call), rule.seconds / _BATCHES)
    wanted = max(wanted, min(BATCH, rule.seconds / _LEAST_LARGE))
    each = max(1, min(_MOST_CALLS, math.ceil(wanted / max(call, 1e-9))))
    if not batches and call < LARGE:
        return [each]  # the warm-up is inaccurate for short calls
    if (missing := _least(call, rule) - batches) > 0:
        return [each] * missing
    fits = int((rule.seconds - spent) / max(each * call, 1e-9))
    return [each] * max(1, min(_BATCHES, fits))


def _least(call: float, rule: Rule) -> int:
    if call >= rule.seconds:
        return _LEAST_HUGE
    return _LEAST_LARGE if call >= LARGE else _LEAST


def is_enough(times: list[float], spent: float, rule: Rule) -> bool:
    """Return whether to stop. ``times`` are those of a call, by batch; ``spent`` is the duration of all batches in
    seconds."""
    if rule.iters is not None or len(times) < _LEAST_HUGE:
        return False
    if spent >= rule.seconds:
        return len(times) >= _LEAST_LARGE or min(times) > rule.seconds
    least = _LEAST_LARGE if min(times) >= LARGE else _LEAST
    return len(times) >= least and median(times).spread <= rule.narrow


class Agreement:
    """Figures that all ranks share, over a Gloo group: each costs one round trip."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self._barrier = torch.zeros(1)

    def most(self, *figures: float) -> list[float]:
        """Return the maximum of each over all ranks."""
        tensor = torch.tensor(figures, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, self._group)
        found: list[float] = tensor.tolist()
        return found

    def mean(self, figures: list[float]) -> list[float]:
        """Return the mean of each over all ranks."""
        tensor = torch.tensor(figures, dtype=torch.float64)
        dist.all_reduce(tensor, group=self._group)
        found: list[float] = (tensor / dist.get_world_size(self._group)).tolist()
        return found

    def total(self, count: int) -> int:
        """Return the sum of the ranks' counts."""
        tensor = torch.tensor([count], dtype=torch.int64)
        dist.all_reduce(tensor, dist.ReduceOp.SUM, self._group)
        return int(tensor.item())

    def barrier(self) -> None:
        dist.all_reduce(self._barrier, group=self._group)


class Clock(Protocol):
    """Measures the time between two of its calls, until the work in between has finished."""

    def begin(self) -> None: ...

    def lap(self) -> None: ...

    def laps(self) -> list[float]:
        """Return the seconds from the start to the first lap, from there to the second, and so on."""
        ...


class HostClock:
    def begin(self) -> None:
        self._marks = [time.perf_counter()]

    def lap(self) -> None:
        self._marks.append(time.perf_counter())

    def laps(self) -> list[float]:
        return [then - now for now, then in itertools.pairwise(self._marks)]


class CudaClock:
    """Times with events in the CUDA stream: a call returns when it is queued, long before it is done. The stream waits
    for NCCL's own stream before the next event."""

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
        return [now.elapsed_time(then) / 1000 for now, then in pairs]  # from milliseconds


def warm_up(run: Callable[[], None], count: int, agreement: Agreement, clock: Clock) -> float:
    """Return the duration of one of the ``count`` calls in seconds, on the slowest rank. One call is made even if
    ``count`` is 0, because the size of a batch depends on its duration."""
    spent = []
    for _ in range(max(1, count)):
        agreement.barrier()
        clock.begin()
        run()
        clock.lap()
        spent += clock.laps()
    # The minimum, because the first calls open connections and allocate memory.
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
    """Time the calls; all ranks call it together. ``call`` is the duration from :func:`warm_up`. ``slowest`` uses the
    slowest rank's time instead of the mean, for calls in which a rank need not wait for the others."""
    times: list[float] = []
    calls, all_calls, spent = 0, 0, 0.0
    collecting = gc.isenabled()
    gc.disable()
    try:
        while not is_enough(times, spent, rule) and (
            counts := next_batches(call, calls, len(times), spent, rule)
        ):
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
            all_calls += lead + sum(counts)
            call = median(times).value
    finally:
        if collecting:
            gc.enable()
    return Timed(times, calls, all_calls)
