"""Steps per second of launch/train.py's larger model at 1 Gbit/s: plain torchrun, and torchnet tuned with a bf16 hook.

    uv run -m benchmarks.backend.ddp [ROUNDS] [--rate RATE] [--json FILE]

Both by turns on networks of the same shape, the same seed and the same batches; the losses stand side by side, since a
training that is faster and learns less would be no gain.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from benchmarks.backend.compare import ratio, rounds, save, torchnet
from benchmarks.machine import facts
from torchnet.bench.worker.stats import median

HERE = Path(__file__).parent
TRAIN = str(HERE.parent.parent / "launch/train.py")
ARGUMENTS = ["--model", "large", "--epochs", "3"]
# What a user asks for, the hook, and what `torchnet bench --tune` finds for it.
SETTINGS = ["--tune-compress", "bf16", "--tune-bucket-cap-mb", "1", "--tune-gloo-devices", "2"]


def plain(rate: str, seed: int) -> str:
    words = [str(HERE / "on_node.py"), "script", TRAIN, *ARGUMENTS, "--seed", str(seed)]
    return torchnet(["launch", "--rate", rate, *words])


def tuned(rate: str, seed: int) -> str:
    return torchnet(["launch", "--rate", rate, *SETTINGS, TRAIN, *ARGUMENTS, "--seed", str(seed)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", nargs="?", type=rounds, default=7)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    speeds: dict[str, list[float]] = {"tuned": [], "plain": []}
    losses: dict[str, list[list[float]]] = {"tuned": [], "plain": []}
    for number in range(asked.rounds):
        turn = [("plain", plain), ("tuned", tuned)]
        for name, run in turn if number % 2 else turn[::-1]:
            # Another seed each round: how much the loss varies by itself is then known.
            told = re.findall(r"loss ([0-9.]+), ([0-9.]+) steps/s", run(asked.rate, number))
            speeds[name].append(median([float(speed) for _, speed in told]).value)
            losses[name].append([float(loss) for loss, _ in told])
        print(f"round {number + 1} of {asked.rounds}", file=sys.stderr, flush=True)
        save(asked.json, {"rate": asked.rate, "steps_per_s": speeds, "losses": losses})
    made = ratio(speeds, "tuned", "plain")
    print(facts())
    for name, figures in speeds.items():
        print(f"{name}: {median(figures).value:.2f} steps/s")
    print(f"tuned / plain: {made.value:.2f} ({made.low:.2f} to {made.high:.2f}, {asked.rounds} rounds)")
    by_epoch = {name: list(zip(*curves, strict=True)) for name, curves in losses.items()}
    for epoch, (ours, theirs) in enumerate(zip(by_epoch["tuned"], by_epoch["plain"], strict=True)):
        apart = median([a - b for a, b in zip(ours, theirs, strict=True)])
        print(
            f"loss of epoch {epoch + 1}: plain {median(theirs).value:.4f} (seeds differ by "
            f"{max(theirs) - min(theirs):.4f}); tuned minus plain, same seed: {apart.value:+.4f} "
            f"({apart.low:+.4f} to {apart.high:+.4f})"
        )


if __name__ == "__main__":
    main()
