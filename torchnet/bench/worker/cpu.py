"""How busy this node's cores were, and whether a quota held it up, from the kernel's own counts.

Sources: proc(5), /proc/stat; the kernel's Documentation/admin-guide/cgroup-v2.rst, cpu.stat.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # of the columns after "cpu": idle and iowait


@dataclass(frozen=True)
class _Reading:
    """Seconds: ``at`` of the clock, ``used`` and ``all`` of all cores together, ``throttled`` by the quota."""

    at: float
    used: float
    all: float
    throttled: float | None


class Usage:
    """Between :meth:`start` and :meth:`stop`: ``busy`` and ``throttled``.

    ``busy`` is the share of the machine's cores that was in use, 0 … 1, others' work included: what counts is whether
    a core was left. ``throttled`` is the share of the time for which the own cgroup had used up its quota. Each is
    None where it is not known. A reading takes 0.1 ms.
    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._stat = proc / "stat"
        self._cgroup = _cpu_stat(proc, cgroups)
        self._begin: _Reading | None = None

    def start(self) -> None:
        self._begin = self._read()

    def stop(self) -> tuple[float | None, float | None]:
        end, begin, self._begin = self._read(), self._begin, None
        if begin is None:
            return None, None
        whole, time_span = end.all - begin.all, end.at - begin.at
        busy = min(1.0, max(0.0, (end.used - begin.used) / whole)) if whole > 0 else None
        throttled = None
        if begin.throttled is not None and end.throttled is not None and time_span > 0:
            throttled = min(1.0, max(0.0, (end.throttled - begin.throttled) / time_span))
        return busy, throttled

    def _read(self) -> _Reading:
        used = whole = 0.0
        try:
            words = self._stat.read_text().split("\n", 1)[0].split()
            # guest and guest_nice, the last two, are in user and nice already
            columns = [int(word) / _TICKS for word in words[1:9]]
            whole = sum(columns)
            used = whole - sum(columns[index] for index in _IDLE)
        except (OSError, ValueError, IndexError):
            pass
        return _Reading(time.monotonic(), used, whole, self._throttled())

    def _throttled(self) -> float | None:
        if self._cgroup is None:
            return None
        try:
            for line in self._cgroup.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "throttled_usec":
                    return int(value) / 1e6
        except (OSError, ValueError):
            pass
        return None


def _cpu_stat(proc: Path, cgroups: Path) -> Path | None:
    """The file of the own cgroup; in a container, whose cgroup namespace begins with its own, that is the topmost."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    own = next((line[3:] for line in lines if line.startswith("0::/")), "/")
    for place in (cgroups / own.lstrip("/"), cgroups):
        if (place / "cpu.stat").is_file():
            return place / "cpu.stat"
    return None
