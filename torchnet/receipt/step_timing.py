"""Derive training steps, rates and idle time from samples of a worker's traffic (``--measure``). Pure.

Training steps vary in duration, but hardly in bytes. A step therefore shows as silences that recur after equal numbers
of bytes. If no such distance stands out, no step rate is reported. Rejected: autocorrelation in time (on a busy machine
the duration of steps varies by 10 % and more, and no period was found), and counting bursts (DDP's buckets leave
silences within a step).
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

from torchnet.receipt.receipt_model import Measured, Series
from torchnet.units import percent, size

_TRICKLE = 0.05  # share of the usual full sample, below which a sample counts as silence
_BURST = 3  # samples; the duration of a shorter burst cannot be determined
_REACH = 60  # number of following silences to which each one's distance is computed
# Difference in bytes allowed between equal steps (acknowledgements, retransmissions): relative, and absolute.
_NEAR, _NEAR_BYTES = 0.01, 1024
_CLEAR = 0.4  # minimum share of the silences' weight that has another silence one step later
_STANDS_OUT = 4.0  # minimum ratio of that share to the one expected of randomly placed silences
_SMALLEST = 0.75  # share of the best score; a smaller distance that reaches it is the step, and the best is a multiple
_STEPS = 6  # minimum number of steps


@dataclass(frozen=True)
class Rhythm:
    """Timing of one worker's traffic. None where the samples do not determine a value.

    Attributes:
        observed_s: Seconds from the first traffic to the last, as far as they were sampled.
        idle_share: Idle share of a step if steps were found, else of ``observed_s``; 0 to 1.
        rate: Bytes per second during bursts.
        peak: Bytes per second that 5 % of the samples in bursts exceed.
        step_bytes: Bytes per step.
        step_active_s: Seconds of each step that the traffic takes at ``rate``.
        why: Why a value is None.
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
    """A run of samples without traffic.

    Attributes:
        after: Bytes in the block before the silence.
        end: Index of the first sample after the silence.
        weight: Increases with the logarithm of the length.
    """

    after: float
    end: int
    weight: float


@dataclass(frozen=True)
class _Distance:
    """Distance between two silences in bytes (``size``) and samples; ``weight`` is the product of their weights."""

    size: float
    samples: float
    weight: float


def rhythm(blocks: Sequence[Sequence[float]], sample_s: float) -> Rhythm:
    """Analyse the samples of one worker.

    Args:
        blocks: Series of consecutive samples (bytes per sample), in order, with gaps between the series.
        sample_s: Duration of a sample in seconds.
    """
    level = _level(blocks)
    if not level:
        return Rhythm(why="no traffic on the backend")
    least = level * _TRICKLE
    trimmed = _trimmed(blocks, least)
    observed = sum(map(len, trimmed)) * sample_s
    bursts = [burst for block in trimmed for burst in _bursts(block, least)]
    why = []
    step = _step(trimmed, least)
    if step is None:
        why.append("no steps recognised: no amount of bytes repeats")
    rate = peak = None
    if statistics.median(map(len, bursts)) < _BURST:
        why.append(f"no busbw or idle time: bursts are shorter than the samples of {sample_s * 1000:g} ms")
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
    """Return the usual bytes of a full sample (the 90th percentile of those with traffic); 0 without traffic."""
    values = [one for block in blocks for one in block if one > 0]
    return _quantile(values, 0.9) if values else 0.0


def _trimmed(blocks: Sequence[Sequence[float]], least: float) -> list[Sequence[float]]:
    """Cut the blocks to the range from the first sample with traffic to the last."""
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
    """Yield the runs of samples with traffic."""
    for busy, run in itertools.groupby(block, lambda one: one >= least):
        if busy:
            yield list(run)


def _length(burst: Sequence[float]) -> float:
    """Return the length in samples; the first and last count in proportion to the median of those between."""
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
            # The logarithm keeps an hour of silence from outweighing all others.
            found.append(_Silence(after, at, math.log1p(len(samples))))
        after += sum(samples)
    return found


def _step(blocks: Sequence[Sequence[float]], least: float) -> _Distance | None:
    """Return the bytes and samples of a step, or None if no distance between silences stands out."""
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

    def above_random(size: float, here: float) -> float | None:
        reach = _reach(size)
        around = within(size / 2, size * 1.5) - here * whole
        at_random = around / size * 2 * reach / whole
        return here - at_random if here >= _STANDS_OUT * at_random and share(2 * size) >= here / 2 else None

    # Distances longer than that are many only because they overlap: of random bursts, some always agree.
    longest = sum(map(sum, blocks)) / _STEPS
    spaced = itertools.takewhile(lambda size: size <= longest, _spaced(sizes))
    candidates = [(here, size) for size in spaced if (here := share(size)) >= _CLEAR]
    # The reach grows with the size, so a multiple of the step has more silences within it at random.
    good = [(score, size) for here, size in candidates if (score := above_random(size, here)) is not None]
    if not good:
        return None
    enough = _SMALLEST * max(good)[0]
    smallest = min(size for score, size in good if score >= enough)
    # The smallest distance is at the edge of a peak: take the best one in its neighbourhood.
    best = max((one for one in good if one[1] <= smallest + 2 * _reach(smallest)), key=lambda one: one[0])[1]
    reach = _reach(best)
    alike = pairs[bisect.bisect_left(sizes, best - reach) : bisect.bisect_right(sizes, best + reach)]
    if len(alike) < _STEPS:
        return None
    # Average the middle half of the durations. Their median would be quantized to whole samples.
    samples = sorted(pair.samples for pair in alike)
    quarter = len(samples) // 4
    middle = statistics.fmean(samples[quarter : len(samples) - quarter])
    return _Distance(statistics.median(pair.size for pair in alike), middle, 1.0)


def _spaced(sizes: Sequence[float]) -> Iterator[float]:
    """Yield one of each group of nearly equal sizes (there may be 100,000s of sizes), except those near 0."""
    at = bisect.bisect_right(sizes, _NEAR_BYTES / (1 - _NEAR))
    while at < len(sizes):
        size = sizes[at]
        yield size
        at = bisect.bisect_right(sizes, size + _reach(size) / 8, at)


def _reach(size: float) -> float:
    return _NEAR * size + _NEAR_BYTES


_LIMIT = 1 << 20  # bytes of a block's decompressed text
_BLOCKS, _SAMPLES = 8, 4096  # limits per node and per block; an agent keeps 4 blocks of 4096
_DIGITS = 15  # limit on the digits of a sample
_FASTEST, _LARGEST = 1e-6, 1 << 30  # limits: seconds per sample, bytes per unit
_BY_RDMA = 64 << 10  # bytes; less is not training traffic, as in the agents' backend share


def summarize_samples(
    receipt: dict[str, Any], bits_per_s: float | None = None, *, requested: bool = False
) -> dict[str, Any]:
    """Replace the nodes' ``series`` in a receipt by ``measured``; without any, return the receipt unchanged.

    Malformed samples count as missing.

    Args:
        bits_per_s: Rate of all rails of a node together; None if unknown.
        requested: Whether --measure was given. If so, ``measured`` is always added, and states why samples are missing.
    """
    nodes = receipt.get("nodes")
    listed = [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    series = [node["series"] for node in listed if node.get("series")]
    if not series and not requested:
        return receipt
    found = [one for raw in series for one in _read(raw)]
    if any(_rdma(node) for node in listed):
        why = "the job used RDMA, which the interfaces' counters do not include"
    elif receipt.get("network") == "loopback":
        why = "loopback has no rails to sample"
    elif not series:
        why = "the workers sent no samples"
    else:
        why = "" if found else "the workers' samples are malformed"
    measured = _not_measured(why) if why else _combine([one for one, _ in found], found[0][1], bits_per_s)
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
        found = rhythm(blocks, series.sample_s)
    except (ArithmeticError, ValueError, RecursionError, zlib.error):  # the receipt is valid without it
        return
    yield found, series.sample_s


def _samples(text: str) -> list[int]:
    words = zlib.decompressobj().decompress(base64.b64decode(text), _LIMIT).split()
    if len(words) > _SAMPLES or any(len(word) > _DIGITS or not word.isdigit() for word in words):
        raise ValueError("malformed samples")
    return [int(word) for word in words]


def _not_measured(why: str) -> dict[str, Any]:
    measured = Measured(
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
    return measured.model_dump(mode="json")


def _combine(nodes: list[Rhythm], sample_s: float, bits_per_s: float | None) -> dict[str, Any]:
    rate = _median(one.rate for one in nodes)
    steps = _median(one.steps_per_s for one in nodes)
    # The idle share of a step and that of the whole time are different quantities: do not mix them.
    alike = [one for one in nodes if (one.steps_per_s is None) == (steps is None)]
    measured = Measured(
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
    return measured.model_dump(mode="json")


def _median(values: Iterable[float | None]) -> float | None:
    """Return the median of the known values; None unless more than half of the values are known."""
    listed = list(values)
    known = [float(f"{one:.6g}") for one in listed if one is not None]
    return statistics.median(known) if 2 * len(known) > len(listed) else None


def sentence(measured: Measured) -> str:
    """Return the measurements as a sentence, for the receipt's table."""
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
