"""The sides of the comparison. Each runs on a network that `torchnet launch` or `torchnet bench` creates for it.

Every figure is in bytes per second and direction: busbw of an all-reduce of 64 MiB in float32, or the payload of TCP.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MEBIBYTES, SECONDS, TCP_SECONDS = "64", "4", "1.5"


@dataclass(frozen=True)
class Shape:
    """A network to measure. ``rate`` is the value of --rate, "" for none."""

    name: str
    rate: str
    nodes: int

    @property
    def flags(self) -> list[str]:
        return ["--nnodes", str(self.nodes), "--mtu", "9000", *(["--rate", self.rate] if self.rate else [])]


def torchnet(arguments: list[str]) -> str:
    command = [sys.executable, "-m", "torchnet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def on_nodes(shape: Shape, *words: str) -> str:
    return torchnet(["launch", *shape.flags, str(HERE / "on_node.py"), *words])


def iperf3(shape: Shape) -> dict[str, float]:
    """Measure one direction, and the slower direction of both at once."""
    found = re.findall(r"iperf3 (one|both) ([0-9 ]+)", on_nodes(shape, "iperf3", SECONDS))
    return {f"iperf3 {name}": min(map(float, rates.split())) for name, rates in found}


def loop(shape: Shape) -> dict[str, float]:
    return {"loop": float(re.findall(r"busbw ([0-9]+)", on_nodes(shape, "loop", MEBIBYTES, SECONDS))[0])}


def gloo(program: Path, shape: Shape) -> dict[str, float]:
    """Run Gloo's own benchmark. Its output line has bytes, elements, then min, p50, p99 and max in µs."""
    size = int(MEBIBYTES) << 20
    with tempfile.TemporaryDirectory() as folder:
        output = on_nodes(shape, "gloo", str(program), folder, str(size // 4), f"{SECONDS}s")
    p50 = float(re.findall(rf"\b{size} +{size // 4} +[0-9]+ +([0-9]+)", output)[0])
    return {"gloo": 2 * (shape.nodes - 1) / shape.nodes * size / (p50 / 1e6)}


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
