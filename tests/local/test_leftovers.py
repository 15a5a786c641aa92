"""What ranks leave behind, what was there before them, and which signals each gets: without a launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.agents import spec
from tests.jobs import descendants, state
from tests.namespaces import isolated
from torchnet.agent import worker_processes
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import BACKLOG
from torchnet.agent.rank_process import Process
from torchnet.agent.worker_processes import WorkerProcesses

pytestmark = pytest.mark.waits

Begin = Callable[[Callable[[], None]], None]


class Reporter:
    def __init__(self) -> None:
        self.pending = 0
        self.events: list[dict[str, Any]] = []

    def send(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def flush(self) -> None:
        pass

    def warned(self) -> list[str]:
        return [event["text"] for event in self.events if event.get("level") == "warning"]


class Gang:
    """One rank, a shell that runs ``text``."""

    def __init__(self, text: str, **fields: Any) -> None:
        self.loop, self.reporter = EventLoop(), Reporter()
        program = spec(Path("/"), 0, 1, **{"grace": 30.0, **fields})
        program = replace(program, entry="program", command=("sh", "-c", text))
        self.processes = WorkerProcesses(self.loop, program, self.reporter, self._ended)
        self.codes: list[int | None] = []

    def _ended(self, process: Process) -> None:
        self.codes.append(process.code)
        self.loop.stop()

    def start(self, attempt: int = 0) -> None:
        self.processes.start(attempt, "run", lambda _rank, _file: {"PATH": os.environ["PATH"], "RANK": "0"})

    def ended(self, seconds: float = 10) -> int | None:
        self.look(seconds)
        return self.codes[-1]

    def look(self, seconds: float) -> None:
        timer = self.loop.later(seconds, self.loop.stop)
        self.loop.run()
        timer.cancel()

    def took(self, begin: Begin, seconds: float = 20) -> float:
        """Seconds from ``begin`` until it called what it was given."""
        began, done = time.monotonic(), []
        begin(lambda: (done.append(time.monotonic()), self.loop.stop()))  # type: ignore[arg-type, func-returns-value]
        self.look(seconds)
        assert done, f"not within {seconds} s"
        return done[0] - began

    def stopped(self, number: int = signal.SIGTERM) -> float:
        return self.took(lambda done: self.processes.stop(done, number))


@contextmanager
def gang(text: str, **fields: Any) -> Iterator[Gang]:
    one = Gang(text, **fields)
    one.start()
    try:
        yield one
    finally:
        one.processes.close()
        one.loop.close()


def until_written(path: Path, one: Gang) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        one.look(0.05)


@isolated
def test_processes_that_were_there_before_are_not_the_jobs() -> None:
    """As of ``torchnet … > >(tee log)``, or of ``nvidia-smi dmon & exec torchnet …``."""
    other = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
    while not (inner := descendants(other.pid)):
        time.sleep(0.01)
    with gang("exit 0") as one:
        assert one.ended() == 0
        assert one.took(one.processes.finish) < 2
        one.processes.freeze()
        assert state(other.pid) == "S"
        os.kill(other.pid, signal.SIGKILL)  # its child then is the agent's
        one.look(0.2)
        one.start(1)
        assert one.ended() == 0
        assert one.took(one.processes.finish) < 2
        one.processes.freeze()
        assert one.stopped() < 2
        one.processes.kill()
        assert state(inner[0]) == "S"


@isolated
def test_the_output_of_what_is_left_is_read_again_after_a_pause(tmp_path: Path) -> None:
    """The rank ends while nobody reads; what it left behind writes more than its pipe holds."""
    left = f"(sleep 1; head -c 300000 /dev/zero | tr '\\0' x; touch {tmp_path}/uploaded) & sleep 0.3"
    with gang(left) as one:
        one.reporter.pending = BACKLOG + 1
        assert one.ended() == 0
        one.look(1.5)
        assert not (tmp_path / "uploaded").exists(), "it waits for the reader, and no memory grows"
        one.reporter.pending = 0
        one.took(one.processes.finish)
    assert (tmp_path / "uploaded").exists()
    assert sum(len(event["data"]) for event in one.reporter.events if event["event"] == "output") == 300000


@pytest.mark.parametrize(
    "text",
    [
        "sleep 600 & echo $! > pid; wait",  # a shell lets it ignore SIGINT, and dies of SIGINT itself
        "setsid sleep 600 & echo $! > pid; wait",
        "trap 'exit 0' INT; sleep 600 & echo $! > pid; wait",
    ],
)
def test_who_ignores_ctrl_c_gets_sigterm_when_its_rank_has_ended(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    @isolated
    def stop() -> None:
        with gang(text) as one:
            until_written(tmp_path / "pid", one)
            assert one.stopped(signal.SIGINT) < 2

    stop()


@isolated
def test_who_handles_ctrl_c_and_goes_on_gets_sigterm_before_sigkill(tmp_path: Path) -> None:
    """2 s after its rank has ended, as it may be saving something first; and 2 s later SIGKILL."""
    helper = f"""
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: None)
signal.signal(signal.SIGTERM, lambda *_: open("{tmp_path}/terminated", "w"))
open("{tmp_path}/ready", "w")
while True:
    time.sleep(0.1)
"""
    text = f"trap 'exit 0' INT; '{sys.executable}' -c '{helper}' & while true; do sleep 0.1; done"
    with gang(text) as one:
        until_written(tmp_path / "ready", one)
        assert 3.5 < one.stopped(signal.SIGINT) < 8
    assert (tmp_path / "terminated").exists()


@isolated
def test_a_restart_is_not_taken_for_what_the_attempt_before_left() -> None:
    """The next look at leftovers would be 0.2 s later, and the restart is faster."""
    finished: list[int] = []
    with gang("[ $RESTARTED ] && exec sleep 1; sleep 600 &") as one:
        assert one.ended() == 0
        one.processes.finish(lambda: finished.append(1))
        deadline = time.monotonic() + 20
        while not one.reporter.warned():
            assert time.monotonic() < deadline
            one.look(0.01)
        began = time.monotonic()
        one.stopped()
        environment = {"PATH": os.environ["PATH"], "RESTARTED": "1"}
        one.processes.start(1, "run", lambda _rank, _file: environment)
        assert time.monotonic() - began < 0.2, "too late to show anything"
        assert one.ended() == 0
        one.look(0.5)
        assert (finished, len(one.reporter.warned())) == ([], 1)
        one.stopped()


@pytest.mark.parametrize("runtime", ["local", "agent"])
def test_what_never_ends_is_not_waited_for_for_ever(runtime: str, tmp_path: Path) -> None:
    """A local job ends it; on hosts it goes on, as under torchrun, and may write lines that nobody reads."""
    shown = tmp_path / "shown"
    upload = f"while sleep 0.1; do echo progress; date +%N > {shown}; done"

    def body() -> None:
        worker_processes.LEFTOVER_LIMIT = 2.5
        with gang(f"sh -c '{upload}' & ", runtime=runtime) as one:
            assert one.ended() == 0
            took = one.took(one.processes.finish)
        assert 2.5 < took < 6
        waiting, last = one.reporter.warned()
        assert waiting.startswith("waiting up to 2.5 s for processes that ended ranks have left behind: ")
        assert "while sleep 0.1" in last
        written = shown.read_text()
        time.sleep(0.5)
        assert ("go on" in last, written != shown.read_text()) == (runtime != "local",) * 2

    @isolated
    def below_the_first_process() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                body()
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    below_the_first_process()
