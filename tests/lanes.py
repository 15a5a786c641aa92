"""Lanes: several processes run the tests at the same time, each taking one file after the other.

`pytest` without paths takes a lane for each processor, one more for the cluster, and one for the tests that are marked
``waits``: they hardly take a processor, and run one after the other. ``--lanes N`` takes N, also for single files, and
``--lanes 1`` runs one test after the other. Tests that are marked ``quiet`` run at the end, while no other test runs:
they measure rates, or hold the product to a few seconds. Those of them that are marked ``waits`` as well run beside the
cluster's.

A test that fails beside others runs once more at the end, alone, and that result counts: a busy machine may break a
bound of seconds, a defect breaks it again. Its first failure is printed all the same, as a race may hide there. Only
the first MOST_AGAIN failures are repeated.

The lanes are forks of pytest after its collection: nothing is collected twice, and no thread is there to be
forked halfway, as there would be in pytest-xdist's workers. Each lane is a session of its own, because tests/leaks.py
counts the processes of a session. Reports travel to the first process, which prints them file by file.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

from tests.durations import Durations
from tests.leaks import MARK

OPTION = "--lanes"
QUIET, WAITS = "quiet", "waits"
MOST = 4  # of all processors: tests with bounds of seconds have not been tried with more
MOST_AGAIN = 10
AGAIN = "again"  # the outcome of the first failure of a test that runs once more
CLUSTER = str(Path(__file__).resolve().parent / "cluster")  # one session fixture for all of its tests
OF_MANY_FILES = (CLUSTER, WAITS)


@dataclass(frozen=True)
class Unit:
    """Tests that one lane runs in a row: those of a file, or all that use the cluster, or that wait."""

    group: str
    quiet: bool
    items: list[pytest.Item] = field(default_factory=list)


def units(items: Iterable[pytest.Item]) -> list[Unit]:
    """In the order of the items, but with those of many files first, as they take longest, and the quiet ones last.

    Of these, the cluster's come first: what waits runs beside them.
    """
    found: dict[tuple[str, bool], Unit] = {}
    for item in items:
        key = _group(item), item.get_closest_marker(QUIET) is not None
        found.setdefault(key, Unit(*key)).items.append(item)
    order = {group: number for number, group in enumerate(OF_MANY_FILES)}
    return sorted(found.values(), key=lambda unit: (unit.quiet, order.get(unit.group, len(order))))


def _group(item: pytest.Item) -> str:
    if item.path.is_relative_to(CLUSTER):
        return CLUSTER
    return WAITS if item.get_closest_marker(WAITS) else str(item.path)


def default_count(config: pytest.Config) -> int:
    """One lane for some paths, or where a debugger or the terminal is wanted; else by the processors."""
    some = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if some or config.option.usepdb or config.option.capture == "no" or sys.platform != "linux":
        return 1
    processors = min(len(os.sched_getaffinity(0)), MOST)
    return processors + len(OF_MANY_FILES) if processors > 1 else 1


@dataclass
class Lane:
    """One of the processes, as the first one sees it."""

    pid: int
    ended: int  # its pidfd
    connection: Connection[Any, Any]
    unit: Unit | None = None
    has_cluster: bool = False  # and keeps it for the quiet tests
    reports: list[tuple[str, Any]] = field(default_factory=list)


class Lanes:
    """The pytest plugin that runs the tests in lanes."""

    def __init__(self, durations: Durations) -> None:
        self.durations = durations
        self.first_failures: dict[
            str, list[pytest.TestReport]
        ] = {}  # by node id, in setup, call and teardown
        self._repeats = False

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return (AGAIN, "R", "AGAIN") if str(report.outcome) == AGAIN else None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.first_failures:
            terminalreporter.section("failed beside others, then ran again alone")
        for name, reports in self.first_failures.items():
            for report in reports:
                terminalreporter.section(f"{name} ({report.when})", "_")
                terminalreporter.line(report.longreprtext)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        config = session.config
        count = config.getoption(OPTION) or default_count(config)
        waiting = units(session.items)
        count = min(count, len(waiting))
        if count < 2 or session.testsfailed or config.option.collectonly:
            return None
        lanes: list[Lane] = []
        for _ in range(count):
            lane = _fork(config, lanes)
            if isinstance(lane, Connection):
                _work(session, lane)
                return True
            lanes.append(lane)
        try:
            self._hand_out(session, waiting, lanes)
        finally:
            _end(lanes)
        return True

    def _hand_out(self, session: pytest.Session, waiting: list[Unit], lanes: list[Lane]) -> None:
        most_files = max(1, len(lanes) - len({unit.group for unit in waiting} & set(OF_MANY_FILES)))
        while True:
            for lane in lanes:
                if lane.unit is None and (
                    unit := choose(lane, waiting, lanes, most_files, alone=self._repeats)
                ):
                    waiting.remove(unit)
                    lane.unit = unit
                    # The cluster stays for its quiet tests, which this lane will be given as well.
                    kept = [one.items[0] for one in waiting if one.group == unit.group == CLUSTER]
                    lane.connection.send([[item.nodeid for item in some] for some in (unit.items, kept[:1])])
            busy = [lane for lane in lanes if lane.unit]
            if not busy:
                again = [item for item in session.items if item.nodeid in self.first_failures]
                if self._repeats or not again:
                    return
                waiting = [replace(unit, quiet=True) for unit in units(again)]
                self._repeats = True
                continue
            ready = wait([one for lane in busy for one in (lane.connection, lane.ended)])
            for lane in busy:
                try:
                    if lane.connection in ready:
                        self._receive(session, lane, waiting)
                    elif lane.ended in ready:
                        raise EOFError
                except EOFError:
                    group = lane.unit and lane.unit.group
                    pytest.exit(f"a lane has died in {group}: {_death(lane.pid)}", returncode=3)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)

    def _receive(self, session: pytest.Session, lane: Lane, waiting: list[Unit]) -> None:
        assert lane.unit is not None
        kind, value = lane.connection.recv()
        if kind != "end":
            if kind == "logstart" and lane.reports and _file(value) != _file(lane.reports[0][1]):
                self._replay(session.config, lane)
            lane.reports.append((kind, value))
            return
        self._replay(session.config, lane)
        self.durations.add(*value)
        lane.has_cluster = lane.unit.group == CLUSTER and any(unit.group == CLUSTER for unit in waiting)
        lane.unit = None

    def _replay(self, config: pytest.Config, lane: Lane) -> None:
        """Give a lane's reports to the plugins of this process, as if the tests had run here."""
        assert lane.unit is not None
        was_alone = self._repeats or (lane.unit.quiet and lane.unit.group not in OF_MANY_FILES)
        may_repeat = not was_alone and not config.option.maxfail
        for kind, value in lane.reports:
            match kind:
                case "logstart":
                    config.hook.pytest_runtest_logstart(nodeid=value[0], location=value[1])
                case "logreport":
                    report = config.hook.pytest_report_from_serializable(config=config, data=value)
                    if report.failed and may_repeat:
                        self._hold_back(report)
                    config.hook.pytest_runtest_logreport(report=report)
                case "logfinish":
                    config.hook.pytest_runtest_logfinish(nodeid=value[0], location=value[1])
        lane.reports.clear()

    def _hold_back(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.first_failures or len(self.first_failures) < MOST_AGAIN:
            self.first_failures.setdefault(report.nodeid, []).append(report)
            report.outcome = AGAIN  # type: ignore[assignment]


def choose(
    lane: Lane, waiting: list[Unit], lanes: list[Lane], most_files: int, *, alone: bool
) -> Unit | None:
    """What an idle lane runs next; None while it has to wait. ``alone``: quiet tests run beside none at all."""
    if loud := [unit for unit in waiting if not unit.quiet]:
        files = sum(one.unit is not None and one.unit.group not in OF_MANY_FILES for one in lanes)
        full = files >= most_files and loud[0].group not in OF_MANY_FILES
        return None if lane.has_cluster or full else loud[0]
    running = {one.unit.group if one.unit.quiet else "" for one in lanes if one.unit}
    if running == {CLUSTER} and not alone:
        return next((unit for unit in waiting if unit.group == WAITS), None)
    if running:
        return None
    if lane.has_cluster:  # no other quiet test begins before the cluster's
        return next((unit for unit in waiting if unit.group == CLUSTER), None)
    return waiting[0] if waiting and not any(one.has_cluster for one in lanes) else None


def _file(logstart: tuple[str, Any]) -> str:
    return logstart[0].partition("::")[0]


def _fork(config: pytest.Config, others: list[Lane]) -> Lane | Connection[Any, Any]:
    """A new lane; in its own process, the connection to the first one."""
    from torchnet.linux import namespaces  # Linux alone

    reporter = config.pluginmanager.getplugin("terminalreporter")
    for buffer in (reporter, sys.stdout, sys.stderr):
        buffer.flush()  # else both processes would print what is in it
    ours, theirs = Pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return Lane(pid, os.pidfd_open(pid), ours)
    os.setsid()
    namespaces.die_with_parent(signal.SIGINT, parent)
    os.environ[MARK] = uuid.uuid4().hex
    ours.close()
    for other in others:
        other.connection.close()
    # As in pytest-xdist's workers: by this the plugins know that another process reports and writes the cache.
    config.workerinput = {}  # type: ignore[attr-defined]
    config.pluginmanager.unregister(reporter)
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()  # its files are those of the first process
    capture.start_global_capturing()
    capture.suspend_global_capture()
    return theirs


class _Reports:
    """The plugin of a lane that sends its reports."""

    def __init__(self, config: pytest.Config, connection: Connection[Any, Any]) -> None:
        self.config = config
        self.connection = connection

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self.connection.send(("logstart", (nodeid, location)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.connection.send(("logreport", data))

    def pytest_runtest_logfinish(self, nodeid: str, location: object) -> None:
        self.connection.send(("logfinish", (nodeid, location)))


def _work(session: pytest.Session, connection: Connection[Any, Any]) -> None:
    """Run the units that the first process names, until it names no more."""
    config = session.config
    config.pluginmanager.register(_Reports(config, connection))
    durations = config.pluginmanager.getplugin(Durations.NAME)
    by_name = {item.nodeid: item for item in session.items}
    for received in _received(connection):
        items, kept = ([by_name[name] for name in names] for names in received)
        for item, following in zip_longest(items, [*items[1:], *kept]):
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                break
        connection.send(("end", durations.taken()))


def _received(connection: Connection[Any, Any]) -> Iterator[list[list[str]]]:
    with suppress(EOFError):
        while True:
            yield connection.recv()


def _death(pid: int) -> str:
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended
    return f"{'exit code' if ended.si_code == os.CLD_EXITED else 'signal'} {ended.si_status}"


def _end(lanes: list[Lane]) -> None:
    """Let the lanes end what they run, with the teardown of their fixtures, and wait for them."""
    for lane in lanes:
        lane.connection.close()
        if lane.unit:
            with suppress(ProcessLookupError):
                os.kill(lane.pid, signal.SIGINT)
    for lane in lanes:
        os.waitpid(lane.pid, 0)
        os.close(lane.ended)
