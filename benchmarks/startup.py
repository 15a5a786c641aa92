"""Time from the command to the end of a first all-reduce of two ranks: torchnet with its two networks, and torchrun.

    uv run -m benchmarks.startup [PAIRS]

Runs alternate, so that other load on the machine affects both; each pair gives one ratio.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import facts, summary

SCRIPT = str(Path(__file__).with_name("first_allreduce.py"))
TORCHNET = [sys.executable, "-m", "torchnet", "launch", "--nnodes", "2", SCRIPT]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--master-port",
    "29777",
    SCRIPT,
]


def seconds(command: list[str]) -> float:
    """Time one run, from before the process exists until rank 0 prints."""
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"done at ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return float(found[1]) - began


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    for command in (TORCHNET, TORCHRUN):
        seconds(command)  # fills the page cache and compiles modules
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(seconds(TORCHNET))
        theirs.append(seconds(TORCHRUN))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(facts())
    print(f"torchnet launch  {summary(ours)}")
    print(f"torchrun         {summary(theirs)}")
    print(f"ratio            {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
