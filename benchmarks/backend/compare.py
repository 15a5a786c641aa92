"""Compare `torchnet bench` with `iperf3 --bidir`, a plain loop under torchrun and Gloo's own benchmark.

Each round runs all of them, each on a new network with the same --rate and --mtu, and gives one ratio for each pair, so
that other load on the machine affects both sides. The result is the median of the ratios, with its 95 % interval (order
statistics).

Other public benchmarks are not included: nccl-tests needs GPUs, and neither PARAM nor OSU is in a package registry.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.backend.contenders import Shape, bench, gloo, iperf3, loop
from torchnet.bench.worker.stats import Median, median

SHAPES = [
    Shape(f"{words}, n = {nodes}", rate, nodes)
    for words, rate in (("1 Gbit/s", "1gbit"), ("2.5 Gbit/s", "2500mbit"), ("unshaped", ""))
    for nodes in (2, 4)
]
# The pairs to compare; the second is the established tool.
RATIOS = (
    ("bench", "iperf3 both"),
    ("bench", "loop"),
    ("bench", "gloo"),
    ("tcp one", "iperf3 one"),
    ("tcp both", "iperf3 both"),
)


def measure(shape: Shape, rounds: int, program: Path | None) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    sides: list[Callable[[Shape], dict[str, float]]] = [iperf3, loop, bench]
    if program:
        sides.append(partial(gloo, program))
    for number in range(rounds):
        first = number % len(sides)  # the order rotates from round to round
        for side in sides[first:] + sides[:first]:
            for name, figure in side(shape).items():
                found.setdefault(name, []).append(figure)
        print(f"{shape.name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def ratio(found: dict[str, list[float]], ours: str, theirs: str) -> Median:
    return median([a / b for a, b in zip(found[ours], found[theirs], strict=True)])


def compare(rounds: int, only: str, program: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each shape's name, figures and ratios as they arrive, and print a table of the ratios."""
    shapes = [one for one in SHAPES if only in one.name]
    if shapes:
        print(f"\n{'shape':<20}{'what':<32}{'ratio':>8}  {'95 % interval':<16}ours, theirs (Gbit/s)")
    for shape in shapes:
        found = measure(shape, rounds, program)
        ratios = {}
        for ours, theirs in RATIOS:
            if theirs not in found:
                continue
            result = ratio(found, ours, theirs)
            ratios[f"{ours} / {theirs}"] = [result.value, result.low, result.high]
            rates = ", ".join(f"{median(found[name]).value * 8 / 1e9:.3f}" for name in (ours, theirs))
            interval = f"{result.low:.3f} to {result.high:.3f}"
            print(
                f"{shape.name:<20}{ours + ' / ' + theirs:<32}{result.value:>8.3f}  {interval:<16}{rates}",
                flush=True,
            )
        yield shape.name, {"bytes_per_second": found, "ratios": ratios}
