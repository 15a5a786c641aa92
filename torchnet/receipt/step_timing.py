"""Training steps, rates and idle time from samples of a worker's traffic (``--measure``). Pure.

The steps of a training differ in duration, but hardly in bytes. A step therefore shows in silences that follow
equal numbers of bytes, again and again. Rejected: autocorrelation in time (on a busy machine steps differ by a
tenth and more, and nothing was found), and counting bursts (DDP's buckets leave silences within a step). If no
distance stands out, no step rate is reported.
"""

from __future__ import annotations

import base64
import bisect
import itertools
import math
import statistics
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.receipt.model import Measured, Series
from torchnet.units import percent, size

_TRICKLE = 0.05  # of the usual full sample: less is no traffic
_BURST = 3  # samples, below which a burst is too short to tell how long it took
_REACH = 60  # silences, to which each one's distance is looked at
# By which equal steps' bytes may differ: acknowledgements, segments sent again.
_NEAR, _NEAR_BYTES = 0.01, 1024
_CLEAR = 0.4  # of the silences' weight that has another silence a step later
_STANDS_OUT = 4.0  # over what silences at random would have
_SMALLEST = 0.75  # of the best: a smaller distance so good is the step, the best a multiple of it
_STEPS = 6  # at least


@dataclass(frozen=True)
class Rhythm:
    """Of one worker. Rates are bytes per second, times seconds; None is what the samples do not tell.

    ``idle_share``: of a step where there are steps, else of ``observed_s``: from the first traffic to the last one.
    """

    observed_s: float = 0.0
    idle_share: float | None = None
    rate: float | None = None
    peak: float | None = None
    steps_per_s: float | None = None
    step_bytes: float | None = None
    step_active_s: float | None = None
    why: str = ""


@dataclass(frozen=True)
class _Silence:
    """``after`` so many bytes; ``end``: the sample at which it is over; ``weight``: the more the longer."""

    after: float
    end: int
    weight: float


@dataclass(frozen=True)
class _Distance:
    """From one silence to another: bytes, samples, and the product of their weights."""

    size: float
    samples: float
    weight: float


def rhythm(blocks: Sequence[Sequence[float]], sample_s: float) -> Rhythm:
    """``blocks``: series of samples, the bytes of ``sample_s`` seconds each, in order, with gaps between them."""
    level = _level(blocks)
    if not level:
        return Rhythm(why="the backend carried nothing")
    least = level * _TRICKLE
    trimmed = _trimmed(blocks, least)
    observed = sum(map(len, trimmed)) * sample_s
    bursts = [burst for block in trimmed for burst in _bursts(block, least)]
    why = []
    step = _step(trimmed, least)
    if step is None:
        why.append("no steps can be told: no amount of bytes comes again and again")
    rate = peak = None
    if statistics.median(map(len, bursts)) < _BURST:
        why.append(
            f"bursts are shorter than the samples of {sample_s * 1000:g} ms: neither busbw nor idle time"
        )
    else:
        rate = sum(map(sum, bursts)) / sum(map(_length, bursts)) / sample_s
        peak = _quantile([one for burst in bursts for one in burst], 0.95) / sample_s
    active = step.size / rate if step and rate else None
    idle = None
    if rate:
        busy = (
            active / (step.samples * sample_s) if step and active else sum(map(sum, bursts)) / rate / observed
        )
        idle = max(0.0, 1 - busy)
    return Rhythm(
        observed_s=observed,
        idle_share=idle,
        rate=rate,
        peak=peak,
        steps_per_s=1 / (step.samples * sample_s) if step else None,
        step_bytes=step.size if step else None,
        step_active_s=active,
        why="; ".join(why),
    )


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _level(blocks: Sequence[Sequence[float]]) -> float:
    """What a full sample usually has; 0 where there is no traffic."""
    values = [one for block in blocks for one in block if one > 0]
    return _quantile(values, 0.9) if values else 0.0


def _trimmed(blocks: Sequence[Sequence[float]], least: float) -> list[Sequence[float]]:
    """From the first sample with traffic to the last one."""
    places = [
        (number, at) for number, block in enumerate(blocks) for at, one in enumerate(block) if one >= least
    ]
    (first, begin), (last, end) = places[0], places[-1]
    kept = []
    for number in range(first, last + 1):
        block = blocks[number]
        kept.append(block[begin if number == first else 0 : end + 1 if number == last else len(block)])
    return kept


def _bursts(block: Sequence[float], least: float) -> Iterator[list[float]]:
    """The runs of samples with traffic."""
    for busy, run in itertools.groupby(block, lambda one: one >= least):
        if busy:
            yield list(run)


def _length(burst: Sequence[float]) -> float:
    """In samples: the first and the last one count as far as they are as full as those between."""
    if len(burst) < _BURST:
        return float(len(burst))
    full = statistics.median(burst[1:-1])
    return len(burst) - 2 + sum(min(1.0, one / full) for one in (burst[0], burst[-1]))


def _silences(block: Sequence[float], least: float) -> list[_Silence]:
    found, after, at = [], 0.0, 0
    for busy, run in itertools.groupby(block, lambda one: one >= least):
        samples = list(run)
        at += len(samples)
        if not busy:
            # An hour's silence must not outweigh all others.
            found.append(_Silence(after, at, math.log1p(len(samples))))
        after += sum(samples)
    return found


def _step(blocks: Sequence[Sequence[float]], least: float) -> _Distance | None:
    """Bytes and samples of a step, where it can be told."""
    silences = [_silences(block, least) for block in blocks]
    whole = sum(one.weight**2 for block in silences for one in block)
    pairs = sorted(
        (
            _Distance(later.after - one.after, later.end - one.end, one.weight * later.weight)
            for block in silences
            for number, one in enumerate(block)
            for later in block[number + 1 : number + 1 + _REACH]
        ),
        key=lambda pair: pair.size,
    )
    sizes = [pair.size for pair in pairs]
    sums = list(itertools.accumulate((pair.weight for pair in pairs), initial=0.0))

    def within(low: float, high: float) -> float:
        return sums[bisect.bisect_right(sizes, high)] - sums[bisect.bisect_left(sizes, low)]

    def share(size: float) -> float:
        reach = _reach(size)
        return within(size - reach, size + reach) / whole

    def clear(size: float, here: float) -> bool:
        reach = _reach(size)
        around = within(size / 2, size * 1.5) - here * whole
        at_random = around / size * 2 * reach / whole
        return here >= _STANDS_OUT * at_random and share(2 * size) >= here / 2

    candidates = [(here, size) for size in _spaced(sizes) if (here := share(size)) >= _CLEAR]
    good = [(here, size) for here, size in candidates if clear(size, here)]
    if not good:
        return None
    enough = _SMALLEST * max(good)[0]
    smallest = min(size for here, size in good if here >= enough)
    # The middle of the peak that it is the edge of.
    best = max((one for one in good if one[1] <= smallest + 2 * _reach(smallest)), key=lambda one: one[0])[1]
    reach = _reach(best)
    alike = pairs[bisect.bisect_left(sizes, best - reach) : bisect.bisect_right(sizes, best + reach)]
    if len(alike) < _STEPS:
        return None
    # Of the durations the middle half's mean: their median would be a whole number of samples.
    samples = sorted(pair.samples for pair in alike)
    quarter = len(samples) // 4
    middle = statistics.fmean(samples[quarter : len(samples) - quarter])
    return _Distance(statistics.median(pair.size for pair in alike), middle, 1.0)


def _spaced(sizes: Sequence[float]) -> Iterator[float]:
    """Of those that are nearly equal one: there may be hundreds of thousands. None that is within reach of 0."""
    at = bisect.bisect_right(sizes, _NEAR_BYTES / (1 - _NEAR))
    while at < len(sizes):
        size = sizes[at]
        yield size
        at = bisect.bisect_right(sizes, size + _reach(size) / 8, at)


def _reach(size: float) -> float:
    return _NEAR * size + _NEAR_BYTES


_LIMIT = 1 << 20  # bytes of a block's text
_BLOCKS, _SAMPLES = 8, 4096  # of a node, and of a block: twice what an agent keeps, and as many as it does
_DIGITS = 15  # of a sample
_FASTEST, _LARGEST = 1e-6, 1 << 30  # seconds of a sample, bytes of its unit
_BY_RDMA = 64 << 10  # bytes: less is no training's, as for the agents' share


def summed(
    receipt: dict[str, Any], bits_per_s: float | None = None, *, asked: bool = False
) -> dict[str, Any]:
    """The receipt with ``measured`` made of its nodes' ``series``; the same one where there are none.

    ``bits_per_s``: of all rails of a node together, where it is known. ``asked``: --measure was said, so that it is a
    matter why there are none. Samples that cannot be read count as none.
    """
    nodes = receipt.get("nodes")
    listed = [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    series = [node["series"] for node in listed if node.get("series")]
    if not series and not asked:
        return receipt
    found = [one for raw in series for one in _read(raw)]
    if any(_rdma(node) for node in listed):
        why = "bytes went by RDMA, which the interfaces' counters do not see"
    elif receipt.get("network") == "loopback":
        why = "on loopback no interface is a rail, and nothing was sampled"
    elif not series:
        why = "no worker gave its samples"
    else:
        why = "" if found else "the workers' samples cannot be read"
    measured = _untold(why) if why else _together([one for one, _ in found], found[0][1], bits_per_s)
    if series and isinstance(nodes, list):
        nodes = [{**node, "series": None} if isinstance(node, dict) else node for node in nodes]
    return {**receipt, "nodes": nodes, "measured": measured}


def _rdma(node: dict[str, Any]) -> bool:
    ports = [node.get(name) for name in ("rdma_bytes", "rdma_stray")]
    counts = [count for one in ports if isinstance(one, dict) for count in one.values()]
    return sum(count for count in counts if isinstance(count, int)) > _BY_RDMA


def _read(raw: object) -> Iterator[tuple[Rhythm, float]]:
    try:
        series = Series.model_validate(raw)
        if len(series.blocks) > _BLOCKS or series.sample_s < _FASTEST or series.unit_bytes > _LARGEST:
            return
        ordered = sorted(series.blocks.items(), key=lambda item: int(item[0]))
        blocks = [[series.unit_bytes * one for one in _samples(text)] for _, text in ordered]
        made = rhythm(blocks, series.sample_s)
    except (ArithmeticError, ValueError, RecursionError, zlib.error):  # a receipt is there without it, too
        return
    yield made, series.sample_s


def _samples(text: str) -> list[int]:
    words = zlib.decompressobj().decompress(base64.b64decode(text), _LIMIT).split()
    if len(words) > _SAMPLES or any(len(word) > _DIGITS or not word.isdigit() for word in words):
        raise ValueError("these are no samples")
    return [int(word) for word in words]


def _untold(why: str) -> dict[str, Any]:
    made = Measured(
        nodes=0,
        sample_s=0.0,
        observed_s=0.0,
        idle_share=None,
        busbw=None,
        peak=None,
        line_share=None,
        steps_per_s=None,
        step_bytes=None,
        step_active_s=None,
        why=why,
    )
    return made.model_dump(mode="json")


def _together(nodes: list[Rhythm], sample_s: float, bits_per_s: float | None) -> dict[str, Any]:
    rate = _median(one.rate for one in nodes)
    steps = _median(one.steps_per_s for one in nodes)
    # Idle of a step is another share than idle of all the time.
    alike = [one for one in nodes if (one.steps_per_s is None) == (steps is None)]
    made = Measured(
        nodes=len(nodes),
        sample_s=sample_s,
        observed_s=_median(one.observed_s for one in nodes) or 0.0,
        idle_share=_median(one.idle_share for one in alike),
        busbw=rate,
        peak=_median(one.peak for one in nodes),
        line_share=rate * 8 / bits_per_s if rate is not None and bits_per_s else None,
        steps_per_s=steps,
        step_bytes=_median(one.step_bytes for one in nodes),
        step_active_s=_median(one.step_active_s for one in nodes),
        why=next((one.why for one in nodes if one.why), ""),
    )
    return made.model_dump(mode="json")


def _median(values: Iterable[float | None]) -> float | None:
    """None where most do not know it."""
    listed = list(values)
    known = [float(f"{one:.6g}") for one in listed if one is not None]
    return statistics.median(known) if 2 * len(known) > len(listed) else None


def sentence(measured: Measured) -> str:
    """For the receipt's table."""
    parts = []
    if measured.steps_per_s is not None:
        step = f"{measured.steps_per_s:.3g} steps/s"
        if measured.step_bytes is not None:
            step += f" of {size(round(measured.step_bytes))} sent by a node"
        if measured.step_active_s is not None:
            step += f" in {measured.step_active_s * 1000:.3g} ms"
        parts.append(step)
    if measured.busbw is not None:
        line = f" ({percent(measured.line_share)} of the line)" if measured.line_share is not None else ""
        parts.append(f"busbw {measured.busbw * 8 / 1e9:.3g} Gbit/s while active{line}")
    if measured.idle_share is not None:
        whole = "a step" if measured.steps_per_s is not None else f"{measured.observed_s:.1f} s"
        parts.append(f"idle {percent(measured.idle_share)} of {whole}")
    if measured.why:
        parts.append(measured.why)
    return f"measured: {', '.join(parts) or 'nothing'}"
