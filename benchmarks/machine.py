"""Facts about the machine that every benchmark prints, and the summary of repeated runs."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence


def facts() -> str:
    """Return one line: processor, cores, memory, kernel, Python."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "?"
    )
    memory = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {memory / 2**20:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def summary(values: Sequence[float]) -> str:
    """Format the median and the range in seconds."""
    return (
        f"{statistics.median(values):.2f} s (from {min(values):.2f} to {max(values):.2f}, {len(values)} runs)"
    )


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.readlines()
    except OSError:
        return []
