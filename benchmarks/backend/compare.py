"""`torchnet bench`, `iperf3 --bidir` and a plain loop under torchrun, by turns, on networks of the same shape.

    uv run -m benchmarks.backend.compare [ROUNDS] [--only SHAPE] [--json FILE]

Each round runs all three, each on a network built for it with the same --rate and --mtu; a round gives one ratio for
each pair, so that whatever else the machine does meets both sides. Of the ratios: the median, and the interval in which
the true median lies with 95 % (order statistics). Needs iperf3.

Of other public benchmarks nccl-tests takes GPUs, and neither PARAM's nor OSU's is in a package registry.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from torchnet.bench.worker.stats import Median, median

HERE = Path(__file__).parent
LEAST = 6  # rounds: of fewer there is no interval of 95 %
MEBIBYTES, SECONDS, TCP_SECONDS = "64", "4", "1.5"


@dataclass(frozen=True)
class Shape:
    """``rate`` as --rate takes it, "" for none."""

    name: str
    rate: str
    nodes: int

    @property
    def flags(self) -> list[str]:
        return ["--nnodes", str(self.nodes), "--mtu", "9000", *(["--rate", self.rate] if self.rate else [])]


SHAPES = [
    Shape(f"{words}, n = {nodes}", rate, nodes)
    for words, rate in (("1 Gbit/s", "1gbit"), ("2.5 Gbit/s", "2500mbit"), ("unshaped", ""))
    for nodes in (2, 4)
]


def torchnet(arguments: list[str]) -> str:
    command = [sys.executable, "-m", "torchnet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def iperf3(shape: Shape) -> dict[str, float]:
    """Bytes per second and direction: one way, and the slower direction of both at once."""
    told = torchnet(["launch", *shape.flags, str(HERE / "on_node.py"), "iperf3", SECONDS])
    found = re.findall(r"iperf3 (one|both) ([0-9 ]+)", told)
    return {f"iperf3 {name}": min(map(float, rates.split())) for name, rates in found}


def loop(shape: Shape) -> dict[str, float]:
    told = torchnet(["launch", *shape.flags, str(HERE / "on_node.py"), "loop", MEBIBYTES, SECONDS])
    return {"loop": float(re.findall(r"busbw ([0-9]+)", told)[0])}


def bench(shape: Shape) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        size = f"{MEBIBYTES}M"
        torchnet(["bench", "all_reduce", "-b", size, "-e", size, "--seconds", SECONDS, "--tcp-seconds", TCP_SECONDS,
                  *shape.flags, "--json", str(path)])  # fmt: skip
        results: dict[str, Any] = json.loads(path.read_text())
    pair = [one for one in results["tcp"] if {one["source"], one["target"]} == {0, 1}]
    return {
        "bench": results["collectives"][0]["busbw"],
        "tcp one": next(one["rate"]["median"] for one in pair if not one["both"] and one["source"] == 0),
        "tcp both": min(one["rate"]["median"] for one in pair if one["both"]),
    }


# What is held against what; the second is what people use today.
RATIOS = (("bench", "iperf3 both"), ("bench", "loop"), ("tcp one", "iperf3 one"), ("tcp both", "iperf3 both"))


def measure(shape: Shape, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        turn = [iperf3, loop, bench]
        # Whoever comes first changes from round to round.
        for one in turn[number % 3 :] + turn[: number % 3]:
            for name, figure in one(shape).items():
                found.setdefault(name, []).append(figure)
        print(f"{shape.name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def ratio(found: dict[str, list[float]], ours: str, theirs: str) -> Median:
    return median([a / b for a, b in zip(found[ours], found[theirs], strict=True)])


def rounds(text: str) -> int:
    """For argparse."""
    number = int(text)
    if number < LEAST:
        raise argparse.ArgumentTypeError(f"{LEAST} rounds at least: fewer have no interval of 95 %")
    return number


def save(path: Path | None, told: dict[str, Any]) -> None:
    """With the machine's facts; after each part anew, so that a failure costs no figures."""
    if path is not None:
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        path.write_text(json.dumps({"machine": facts(), "date": date, **told}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", nargs="?", type=rounds, default=9)
    parser.add_argument("--only", default="", help="shapes whose name has this in it")
    parser.add_argument("--json", type=Path, help="file for all figures")
    asked = parser.parse_args()
    told: dict[str, Any] = {"rounds": asked.rounds, "bytes_per_second": {}, "ratios": {}}
    print(facts())
    print(f"\n{'shape':<20}{'what':<32}{'ratio':>8}  {'95 % interval':<16}ours, theirs (Gbit/s)")
    for shape in (one for one in SHAPES if asked.only in one.name):
        found = told["bytes_per_second"][shape.name] = measure(shape, asked.rounds)
        told["ratios"][shape.name] = {}
        for ours, theirs in RATIOS:
            made = ratio(found, ours, theirs)
            told["ratios"][shape.name][f"{ours} / {theirs}"] = [made.value, made.low, made.high]
            rates = ", ".join(f"{median(found[name]).value * 8 / 1e9:.3f}" for name in (ours, theirs))
            interval = f"{made.low:.3f} to {made.high:.3f}"
            print(
                f"{shape.name:<20}{ours + ' / ' + theirs:<32}{made.value:>8.3f}  {interval:<16}{rates}",
                flush=True,
            )
        save(asked.json, told)


if __name__ == "__main__":
    main()
