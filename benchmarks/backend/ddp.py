"""Steps per second of launch/train.py's larger model at 1 Gbit/s: plain torchrun, and torchnet tuned with a bf16 hook.

    uv run -m benchmarks.backend.ddp [ROUNDS] [--rate RATE] [--json FILE]

Both by turns on networks of the same shape, the same seed and the same batches; the losses stand side by side, since a
training that is faster and learns less would be no gain.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from benchmarks.backend.compare import ratio, torchnet
from benchmarks.machine import facts
from torchnet.bench.worker.stats import median

HERE = Path(__file__).parent
TRAIN = str(HERE.parent.parent / "launch/train.py")
ARGUMENTS = ["--model", "large", "--epochs", "2"]


def plain(rate: str) -> str:
    return torchnet(["launch", "--rate", rate, str(HERE / "on_node.py"), "script", TRAIN, *ARGUMENTS])


def tuned(rate: str) -> str:
    return torchnet(["launch", "--rate", rate, TRAIN, *ARGUMENTS, "--compress", "bf16"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    speeds: dict[str, list[float]] = {"tuned": [], "plain": []}
    losses: dict[str, list[list[float]]] = {"tuned": [], "plain": []}
    for number in range(asked.rounds):
        turn = [("plain", plain), ("tuned", tuned)]
        for name, run in turn if number % 2 else turn[::-1]:
            told = re.findall(r"loss ([0-9.]+), ([0-9.]+) steps/s", run(asked.rate))
            speeds[name].append(median([float(speed) for _, speed in told]).value)
            losses[name].append([float(loss) for loss, _ in told])
        print(f"round {number + 1} of {asked.rounds}", file=sys.stderr, flush=True)
    made = ratio(speeds, "tuned", "plain")
    print(facts())
    for name, figures in speeds.items():
        print(f"{name}: {median(figures).value:.2f} steps/s; loss by epoch {losses[name][0]}")
    print(f"tuned / plain: {made.value:.2f} ({made.low:.2f} to {made.high:.2f}, {asked.rounds} rounds)")
    if asked.json:
        told_all = {"machine": facts(), "rate": asked.rate, "steps_per_s": speeds, "losses": losses}
        asked.json.write_text(json.dumps(told_all, indent=1) + "\n")


if __name__ == "__main__":
    main()
