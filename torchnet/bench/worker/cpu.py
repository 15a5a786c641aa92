"""Measure how busy this node's cores and this process's threads were, and whether a CPU quota throttled them.

Source: proc(5), /proc/stat and /proc/pid/stat; the kernel's Documentation/admin-guide/cgroup-v2.rst, cpu.stat.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from torchnet.linux import cgroup

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # columns after "cpu": idle and iowait
_USED = slice(11, 13)  # columns after a thread's name: utime and stime
_LEAST = 0.1  # seconds; a thread's time is counted in ticks of 0.01 s, too coarse for less


@dataclass(frozen=True)
class _Reading:
    """``used`` and ``all`` are seconds, summed over all cores. ``periods`` has, for each control group with a quota, by
    its folder, the number of periods and of those in which the quota was exhausted."""

    used: float
    all: float
    periods: dict[Path, tuple[int, int]]


class Usage:
    """Measures ``busy`` and ``throttled`` between :meth:`start` and :meth:`stop`.

    ``busy`` is the share of the machine's cores in use, 0 to 1, by any process: what matters is whether a core was
    free. ``throttled`` is the share of quota periods in which the quota was exhausted, 0 to 1, in this control group or
    one of its ancestors, whichever was throttled more. (The kernel's throttled_usec is a sum over the cores.) Each is
    None if unknown. A reading takes 0.1 ms.
    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = cgroup.ROOT) -> None:
        self._stat = proc / "stat"
        found = (folder / "cpu.stat" for folder in cgroup.groups(cgroups, proc / "self" / "cgroup"))
        self._cgroups = [file for file in found if file.is_file()]
        self._begin: _Reading | None = None

    def start(self) -> None:
        self._begin = self._read()

    def stop(self) -> tuple[float | None, float | None]:
        end, begin, self._begin = self._read(), self._begin, None
        if begin is None:
            return None, None
        whole = end.all - begin.all
        busy = min(1.0, max(0.0, (end.used - begin.used) / whole)) if whole > 0 else None
        shares = []
        for file, (periods, up) in end.periods.items():
            if file in begin.periods:
                first = begin.periods[file]
                # Without a quota there are no periods.
                shares.append((up - first[1]) / (periods - first[0]) if periods > first[0] else 0.0)
        return busy, max(shares, default=None)

    def _read(self) -> _Reading:
        used = whole = 0.0
        try:
            words = self._stat.read_text().split("\n", 1)[0].split()
            # without guest and guest_nice, the last two: user and nice include them
            columns = [int(word) / _TICKS for word in words[1:9]]
            whole = sum(columns)
            used = whole - sum(columns[index] for index in _IDLE)
        except (OSError, ValueError, IndexError):
            pass
        read = ((file, _periods(file)) for file in self._cgroups)
        return _Reading(used, whole, {file: found for file, found in read if found is not None})


def _periods(file: Path) -> tuple[int, int] | None:
    """Return (periods, throttled periods); None if the group has no CPU controller."""
    try:
        counts = dict(line.split(" ", 1) for line in file.read_text().splitlines())
        return int(counts["nr_periods"]), int(counts["nr_throttled"])
    except (OSError, ValueError, KeyError):
        return None


class Threads:
    """Measures the share of one core, 0 to 1, that this process's busiest thread used between :meth:`start` and
    :meth:`stop`."""

    def __init__(self, tasks: Path = Path("/proc/self/task")) -> None:
        self._tasks = tasks
        self._begin: tuple[float, dict[str, int]] | None = None

    def start(self) -> None:
        self._begin = time.monotonic(), self._read()

    def stop(self) -> float | None:
        """Return None if nothing can be read, and after less than 0.1 s. Threads that have ended do not count."""
        end, begin, self._begin = self._read(), self._begin, None
        if begin is None or not end:
            return None
        span = time.monotonic() - begin[0]
        if span < _LEAST:
            return None
        most = max(ticks - begin[1].get(thread, 0) for thread, ticks in end.items())
        return min(1.0, most / _TICKS / span)

    def _read(self) -> dict[str, int]:
        """Return the ticks of each thread."""
        found = {}
        try:
            for task in self._tasks.iterdir():
                try:
                    words = (task / "stat").read_text().rpartition(")")[2].split()
                    found[task.name] = sum(map(int, words[_USED]))
                except (OSError, ValueError):  # the thread has just ended
                    continue
        except OSError:
            pass
        return found
