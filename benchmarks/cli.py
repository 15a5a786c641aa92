"""Time the command line's help pages and a dry run, compared with an empty Python program and with torchrun's help.

    uv run -m benchmarks.cli [RUNS]

Each run is a new process, timed from start to exit.
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.machine import facts, summary

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torchnet": ["-c", "import torchnet"],
    "torchnet --help": ["-m", "torchnet", "--help"],
    "torchnet launch --help": ["-m", "torchnet", "launch", "--help"],
    "torchnet launch --dry-run": ["-m", "torchnet", "launch", "--dry-run", "launch/train.py"],
    "torchrun --help": ["-m", "torch.distributed.run", "--help"],
}


def seconds(arguments: list[str]) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.monotonic() - began


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(facts())
    for name, arguments in COMMANDS.items():
        seconds(arguments)
        print(f"{name:26} {summary([seconds(arguments) for _ in range(runs)])}")


if __name__ == "__main__":
    main()
