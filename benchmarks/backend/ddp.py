"""Steps per second of launch/train.py's larger model at 1 Gbit/s: plain torchrun, and torchnet tuned with a bf16 hook.

The two alternate on networks of the same shape, with the same seed and the same batches. The losses are compared as
well: a faster training that learns less would be no gain.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from benchmarks.backend.compare import ratio
from benchmarks.backend.contenders import HERE, torchnet
from torchnet.bench.worker.stats import median

TRAIN = str(HERE.parent.parent / "launch/train.py")
ARGUMENTS = ["--model", "large", "--epochs", "3"]
RATE = ["--rate", "1gbit"]
SETTINGS = ["--tune", "compress=bf16", "--tune", "bucket_cap_mb=1", "--tune", "gloo_devices=2"]


def plain(seed: int) -> str:
    words = [str(HERE / "on_node.py"), "script", TRAIN, *ARGUMENTS, "--seed", str(seed)]
    return torchnet(["launch", *RATE, *words])


def tuned(seed: int) -> str:
    return torchnet(["launch", *RATE, *SETTINGS, TRAIN, *ARGUMENTS, "--seed", str(seed)])


def ddp(rounds: int) -> dict[str, Any]:
    """Return steps per second and losses per epoch of both sides, and print them."""
    speeds: dict[str, list[float]] = {"tuned": [], "plain": []}
    losses: dict[str, list[list[float]]] = {"tuned": [], "plain": []}
    for number in range(rounds):
        turn = [("plain", plain), ("tuned", tuned)]
        for name, run in turn if number % 2 else turn[::-1]:
            # A new seed in each round shows how much the loss varies by itself.
            epochs = re.findall(r"loss ([0-9.]+), ([0-9.]+) steps/s", run(number))
            speeds[name].append(median([float(speed) for _, speed in epochs]).value)
            losses[name].append([float(loss) for loss, _ in epochs])
        print(f"ddp: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    result = ratio(speeds, "tuned", "plain")
    print(f"\nDDP, {' '.join(ARGUMENTS[:2])}, 1 Gbit/s, n = 2, {' '.join(SETTINGS)}")
    for name, figures in speeds.items():
        print(f"{name}: {median(figures).value:.2f} steps/s")
    print(f"tuned / plain: {result.value:.2f} ({result.low:.2f} to {result.high:.2f}, {rounds} rounds)")
    by_epoch = {name: list(zip(*curves, strict=True)) for name, curves in losses.items()}
    for epoch, (ours, theirs) in enumerate(zip(by_epoch["tuned"], by_epoch["plain"], strict=True)):
        apart = median([a - b for a, b in zip(ours, theirs, strict=True)])
        print(
            f"loss of epoch {epoch + 1}: plain {median(theirs).value:.4f} (seeds differ by "
            f"{max(theirs) - min(theirs):.4f}); tuned minus plain, same seed: {apart.value:+.4f} "
            f"({apart.low:+.4f} to {apart.high:+.4f})"
        )
    return {"steps_per_s": speeds, "losses": losses, "ratio": [result.value, result.low, result.high]}
