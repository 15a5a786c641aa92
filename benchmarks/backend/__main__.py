"""The backend benchmarks, all in one run.

    uv run -m benchmarks.backend [ROUNDS] [--only SHAPE | --only ddp] [--gloo PROGRAM] [--json FILE]

Needs iperf3. PROGRAM is Gloo's own benchmark, built from its repository with -DBUILD_BENCHMARK=ON; without it that
side is left out.
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
        raise argparse.ArgumentTypeError(f"{LEAST} rounds at least: fewer have no interval of 95 %")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(
        "benchmarks.backend", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", nargs="?", type=count, default=LEAST, metavar="ROUNDS")
    parser.add_argument("--only", default="", help="shapes whose name has this in it, or ddp")
    parser.add_argument("--gloo", type=Path, help="Gloo's own benchmark, beside the others")
    parser.add_argument("--json", type=Path, help="file for all figures")
    asked = parser.parse_args()
    if asked.only != "ddp" and not any(asked.only in shape.name for shape in SHAPES):
        parser.error(f"--only {asked.only!r}: neither ddp nor in one of {', '.join(s.name for s in SHAPES)}")
    machine = f"{facts()}, PyTorch {torch.__version__}"
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    told: dict[str, Any] = {"machine": machine, "date": date, "rounds": asked.rounds, "shapes": {}}

    def save() -> None:
        """After each part anew, so that a failure costs no figures."""
        if asked.json is not None:
            asked.json.write_text(json.dumps(told, indent=1) + "\n")

    print(machine)
    for name, found in compare(asked.rounds, asked.only, asked.gloo):
        told["shapes"][name] = found
        save()
    if asked.only in ("", "ddp"):
        told["ddp"] = ddp(asked.rounds)
        save()


if __name__ == "__main__":
    main()
