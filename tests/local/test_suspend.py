"""Ctrl-Z and fg: all processes of all nodes stop, then torchnet itself, and all go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.jobs import Job, descendants, lines, receipt, script, state, until

COUNT = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    print("ready", child.pid, flush=True)
    ticks = 0
    while not os.path.exists("enough"):
        ticks += 1
        with open(f"ticks-{os.environ['RANK']}", "w") as file:
            file.write(str(ticks))
        time.sleep(0.02)
    print("ticks", ticks)
    child.kill()
"""


def below(job: Job) -> list[int]:
    """The scripts' processes and their children."""
    return [pid for rank in job.ranks().values() for pid in (rank, *descendants(rank))]


def ticks(folder: Path) -> list[int]:
    texts = [(folder / f"ticks-{rank}").read_text() for rank in (0, 1)]
    return [int(text or 0) for text in texts]


def test_ctrl_z_stops_all_and_fg_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    arguments = ("--stall-timeout", "3", "--stall-action", "stop", "--json", path, script(tmp_path, COUNT))
    with Job(*arguments, cwd=tmp_path) as job:
        for rank in (0, 1):
            job.wait_for(rf"\[rank {rank}\] ready", on="stdout")
        processes = below(job)
        assert len(processes) == 4
        job.send(signal.SIGTSTP)
        until(lambda: state(job.pid) == "T", "torchnet has stopped")
        # Not one of them ran on after torchnet had stopped.
        assert [state(pid) for pid in processes] == ["T"] * 4
        before = ticks(tmp_path)
        time.sleep(4.5)  # longer than the stall's time-out, which must not take this for one
        assert ticks(tmp_path) == before
        assert state(job.pid) == "T"
        os.kill(job.pid, signal.SIGCONT)
        until(
            lambda: all(now > then for now, then in zip(ticks(tmp_path), before, strict=True)), "they go on"
        )
        assert all(state(pid) in "SRD" for pid in processes)
        (tmp_path / "enough").touch()
        done = job.finish()
    assert done.code == 0, done.stderr
    assert receipt(path)["findings"] == []
    assert "stalled: " not in done.stderr
    assert lines(done.stdout, 0)[1].startswith("ticks ")


def test_ctrl_z_twice(tmp_path: Path) -> None:
    with Job(script(tmp_path, COUNT), cwd=tmp_path) as job:
        job.wait_for(r"\[rank 1\] ready", on="stdout")
        for _ in range(2):
            job.send(signal.SIGTSTP)
            until(lambda: state(job.pid) == "T", "torchnet has stopped")
            os.kill(job.pid, signal.SIGCONT)
            until(lambda: all(state(pid) in "SRD" for pid in below(job)), "all go on")
        (tmp_path / "enough").touch()
        assert job.finish().code == 0


def test_a_stopped_job_can_be_killed(tmp_path: Path) -> None:
    with Job(script(tmp_path, COUNT), cwd=tmp_path) as job:
        job.wait_for(r"\[rank 1\] ready", on="stdout")
        job.send(signal.SIGTSTP)
        until(lambda: state(job.pid) == "T", "torchnet has stopped")
        # As a shell's `kill %1` does it: a stopped process gets the signal when it is continued.
        os.kill(job.pid, signal.SIGTERM)
        sent = job.send(signal.SIGCONT)
        done = job.finish()
    assert done.code == 143
    assert done.at - sent < 10
