"""Run all backend benchmarks.

    uv run -m benchmarks.backend [ROUNDS] [--only SHAPE | --only ddp] [--gloo PROGRAM] [--json FILE]

Needs iperf3. PROGRAM is Gloo's own benchmark, built from its repository with -DBUILD_BENCHMARK=ON; without it, that
comparison is skipped.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks.backend.compare import SHAPES, compare
from benchmarks.backend.ddp import ddp
from benchmarks.machine import facts
from torchnet.bench.worker.stats import LEAST


def count(text: str) -> int:
    number = int(text)
    if number < LEAST:
        raise argparse.ArgumentTypeError(f"needs at least {LEAST} rounds: fewer have no 95 % interval")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(
        "benchmarks.backend", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", nargs="?", type=count, default=LEAST, metavar="ROUNDS")
    parser.add_argument("--only", default="", help="only shapes whose name contains this, or ddp")
    parser.add_argument("--gloo", type=Path, help="also run Gloo's own benchmark")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    if options.only != "ddp" and not any(options.only in shape.name for shape in SHAPES):
        parser.error(
            f"--only {options.only!r}: not ddp, and not part of any of {', '.join(s.name for s in SHAPES)}"
        )
    machine = f"{facts()}, PyTorch {torch.__version__}"
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    results: dict[str, Any] = {"machine": machine, "date": date, "rounds": options.rounds, "shapes": {}}

    def save() -> None:
        """Write after each part, so that a failure loses no figures."""
        if options.json is not None:
            options.json.write_text(json.dumps(results, indent=1) + "\n")

    print(machine)
    for name, found in compare(options.rounds, options.only, options.gloo):
        results["shapes"][name] = found
        save()
    if options.only in ("", "ddp"):
        results["ddp"] = ddp(options.rounds)
        save()


if __name__ == "__main__":
    main()
