"""torchnet's own time per phase, from the start of the process (including Python's startup) to the script's.

Time spent waiting for others (whose pods start later) and for the kernel (duplicate address detection) is separate;
CPU time used meanwhile is torchnet's own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

Report = Callable[[dict[str, Any]], None]


class PhaseTimer:
    """:meth:`own` and :meth:`waited` attribute the time since the last call; :meth:`done` reports a phase."""

    def __init__(self, report: Report, age: float | None = None) -> None:
        self._report = report
        self._last = time.monotonic() - (process_age() if age is None else age)
        self._cpu = time.process_time()
        self._own = self._waited = 0.0
        self._total = 0.0
        self._ended = False

    def own(self) -> None:
        """Count the time since the last call as torchnet's own."""
        self._own += self._passed()[0]

    def waited(self) -> None:
        """Count the time since the last call as waiting, except for CPU time."""
        passed, cpu = self._passed()
        used = min(cpu, passed)
        self._own += used
        self._waited += passed - used

    def done(self, phase: str) -> None:
        """Report the end of a phase."""
        if self._ended:
            return
        self._report({"event": "time", "phase": phase, "own_s": self._own, "waited_s": self._waited})
        self._total += self._own
        self._own = self._waited = 0.0

    def total(self) -> None:
        """Report the total. Later phases (a restart) are not reported."""
        if not self._ended:
            self._report({"event": "own_time", "own_s": self._total})
        self._ended = True

    def _passed(self) -> tuple[float, float]:
        now, cpu = time.monotonic(), time.process_time()
        passed, used = now - self._last, cpu - self._cpu
        self._last, self._cpu = now, cpu
        return passed, used


def process_age() -> float:
    """Return seconds since this process started (starttime in proc(5), in ticks since boot); 0 without /proc."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0.0
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return max(0.0, age)
