"""Where the time of a test run goes: seconds and CPU seconds of each file, and the slowest tests.

Printed at the end in CI (where nothing may be skipped, or CI is set), and with pytest's own ``--durations``.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

SLOWEST = 20
# A test's user property: seconds that it took beside others, where pytest only waits for its end.
BESIDE_OTHERS = "seconds beside others"


@dataclass(frozen=True)
class Cost:
    """Wall time, CPU time of pytest and of the children that it has waited for, and CPU time of the whole machine.

    A daemon or a pod is in the machine's time alone.
    """

    wall: float = 0.0
    own: float = 0.0
    machine: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.own + other.own, self.machine + other.machine)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.own - other.own, self.machine - other.machine)

    def __str__(self) -> str:
        return f"{self.wall:8.1f} {self.own:8.1f} {self.machine:8.1f}"


def cost() -> Cost:
    """What has been spent so far."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # proc(5): user, nice, system, idle, iowait, irq, softirq, in ticks
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    own = sum(one.ru_utime + one.ru_stime for one in usages)
    return Cost(time.perf_counter(), own, busy / os.sysconf("SC_CLK_TCK"))


class Durations:
    """A pytest plugin that measures each test with its fixtures."""

    NAME = "torchnet-durations"

    def __init__(self, *, in_ci: bool) -> None:
        self.in_ci = in_ci or bool(os.environ.get("CI"))
        self.tests: dict[str, Cost] = {}
        self.beside_others: dict[str, float] = {}
        self.began = cost()

    def taken(self) -> tuple[dict[str, Cost], dict[str, float]]:
        """What has been measured since the last call, for the process that prints it."""
        found = self.tests, self.beside_others
        self.tests, self.beside_others = {}, {}
        return found

    def add(self, tests: dict[str, Cost], beside_others: dict[str, float]) -> None:
        """What another process has measured."""
        self.tests |= tests
        self.beside_others |= beside_others

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = cost()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid] = cost() - before
            for name, value in item.user_properties:
                if name == BESIDE_OTHERS and isinstance(value, float):
                    self.beside_others[item.nodeid] = value

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        if not self.tests or not (self.in_ci or config.getoption("durations") is not None):
            return
        files: dict[str, Cost] = {}
        for name, spent in self.tests.items():
            file = name.partition("::")[0]
            files[file] = files.get(file, Cost()) + spent
        seconds = {name: spent.wall for name, spent in self.tests.items()} | self.beside_others
        slowest = sorted(self.tests.items(), key=lambda one: -seconds[one[0]])[:SLOWEST]
        terminalreporter.section(f"cost by file, and the {len(slowest)} slowest tests")
        terminalreporter.write_line("    wall      CPU  machine's CPU with all lanes, in seconds")
        for name, spent in [*sorted(files.items(), key=lambda one: -one[1].wall), *slowest]:
            beside = f"  ({seconds[name]:.1f} s beside others)" if name in self.beside_others else ""
            terminalreporter.write_line(f"{spent}  {name}{beside}")
        tests, run = sum(files.values(), Cost()), cost() - self.began
        terminalreporter.write_line(f"{Cost(run.wall, tests.own, run.machine)}  all")
