"""kill -9, of everything that a job consists of: who is named, what is kept, and that nothing is left."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import Job, descendants, lines, marked, parent, receipt, run, script, until

WAIT = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: (print("stopped", flush=True), sys.exit(0)))
    print("ready", flush=True)
    while True:
        time.sleep(0.1)
"""
# Each way to get away from one's parent: a background process, a session of its own, a daemon by double fork, one
# that ignores every signal that can be ignored.
FLEE = """
    import os, signal, subprocess, sys, time
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_IGN)
            null = os.open("/dev/null", os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            time.sleep(600)
        os._exit(0)
    print("ready", flush=True)
    if len(sys.argv) > 1:
        sys.exit(int(sys.argv[1]))
    time.sleep(600)
"""


def ready(job: Job) -> None:
    for rank in (0, 1):
        job.wait_for(rf"\[rank {rank}\] ready", on="stdout")


def nothing_left(mark: str, since: float, seconds: float) -> None:
    gone = until(lambda: not any(marked(mark)), "all processes are gone", seconds)
    assert gone - since < seconds


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_script_is_named_and_the_others_are_stopped(tmp_path: Path, rank: int) -> None:
    """Row 1: named within 2 s."""
    path = tmp_path / "receipt.json"
    with Job("--json", path, script(tmp_path, WAIT)) as job:
        ready(job)
        killed = time.monotonic()
        os.kill(job.ranks()[rank], signal.SIGKILL)
        named = job.wait_for(f"torchnet: error: rank {rank} on node-{rank} was killed by SIGKILL")
        done = job.finish()
    assert named - killed < 2
    assert done.code == 137
    assert lines(done.stdout, 1 - rank) == ["ready", "stopped"]
    found = receipt(path)
    assert (found["failure"]["rank"], found["failure"]["code"], len(found["nodes"])) == (rank, 137, 2)
    assert found["ranks"][rank]["exit_code"] == 137


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_killed_agent_is_named_and_the_others_receipts_are_kept(tmp_path: Path, rank: int) -> None:
    """Row 29: within 5 s, exit 70. Node 0's agent is the one that all others are connected to."""
    path = tmp_path / "receipt.json"
    with Job("--nnodes", "3", "--json", path, script(tmp_path, WAIT)) as job:
        for other in range(3):
            job.wait_for(rf"\[rank {other}\] ready", on="stdout")
        agent = job.agent(rank)
        killed = time.monotonic()
        os.kill(agent, signal.SIGKILL)
        named = job.wait_for(rf"torchnet: error: lost node-{rank} \(node rank {rank}\)")
        done = job.finish()
    assert named - killed < 5
    assert done.code == 70
    for other in {0, 1, 2} - {rank}:
        assert lines(done.stdout, other) == ["ready", "stopped"]
    found = receipt(path)
    assert (found["exit_code"], found["failure"]["kind"], found["failure"]["node"]) == (
        70,
        "lost",
        f"node-{rank}",
    )
    assert [node["node_rank"] for node in found["nodes"]] == sorted({0, 1, 2} - {rank})
    assert "1 of 3 workers left no receipt" in found["findings"]
    assert f"root cause: lost node-{rank}" in done.stderr


@pytest.mark.parametrize("victim", ["torchnet", "supervisor", "init"])
def test_nothing_is_left_of_a_job_whose_head_is_killed(tmp_path: Path, victim: str) -> None:
    """Row 3, and the same for the two processes between torchnet and its nodes."""
    mark = uuid.uuid4().hex
    with Job(script(tmp_path, FLEE), env={"TEST_JOB": mark}) as job:
        ready(job)
        init = parent(job.agent(0))
        pids = {"torchnet": job.pid, "supervisor": parent(init), "init": init}
        assert parent(pids["supervisor"]) == job.pid
        until(lambda: len([*marked(mark)]) >= 3 + 2 * 5, "what the scripts started runs, too")
        killed = time.monotonic()
        os.kill(pids[victim], signal.SIGKILL)
        done = job.finish()
        nothing_left(mark, killed, 5)
    assert done.code == (-9 if victim == "torchnet" else 70), done.stderr


@pytest.mark.parametrize("delay", [0.0, 0.015, 0.03, 0.06, 0.1, 0.2, 0.4])
def test_nothing_is_left_of_a_job_that_is_killed_while_it_is_made(tmp_path: Path, delay: float) -> None:
    """Row 3, at moments from the first process on to the scripts' start."""
    needs.networks()
    mark = uuid.uuid4().hex
    with Job("--nnodes", "4", script(tmp_path, WAIT), env={"TEST_JOB": mark}) as job:
        until(lambda: descendants(job.pid), "the first process exists")
        time.sleep(delay)
        killed = job.send(signal.SIGKILL)
        job.finish()
        nothing_left(mark, killed, 5)


def test_what_a_script_started_ends_with_the_job(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    done = run("--grace", "1", script(tmp_path, FLEE), 3, env={"TEST_JOB": mark})
    assert done.code == 3, done.stderr
    assert not [*marked(mark)]


@pytest.mark.parametrize("flags", [(), ("--network", "loopback")], ids=["networks", "loopback"])
def test_what_never_ends_after_a_success_ends_with_ctrl_c(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The job has succeeded all the same, and all of its nodes are in the receipt."""
    mark, path = uuid.uuid4().hex, tmp_path / "receipt.json"
    with Job(*flags, "--json", path, script(tmp_path, FLEE), 0, env={"TEST_JOB": mark}) as job:
        for rank in (0, 1):
            job.wait_for(rf"processes that ended ranks have left behind: rank {rank}'s sleep 600, ")
        sent = job.send(signal.SIGINT)
        done = job.finish()
    assert done.code == 0, done.stderr
    assert "stopped by SIGINT" not in done.stderr
    assert done.at - sent < 10
    assert not [*marked(mark)]
    assert (receipt(path)["exit_code"], len(receipt(path)["nodes"])) == (0, 2)


def test_ctrl_c_while_a_rank_still_runs_is_an_interruption(tmp_path: Path) -> None:
    """Also if the other one has succeeded, and left something behind."""
    text = """
        import os, subprocess, time
        if os.environ["RANK"] == "1":
            time.sleep(600)
        subprocess.Popen(["sleep", "600"])
    """
    with Job(script(tmp_path, text)) as job:
        job.wait_for("processes that ended ranks have left behind: rank 0's sleep 600")
        job.send(signal.SIGINT)
        done = job.finish()
    assert done.code == 130, done.stderr


def test_what_a_script_started_ends_on_loopback_as_well(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    flee = script(tmp_path, FLEE)
    with Job("--network", "loopback", "--grace", "1", flee, env={"TEST_JOB": mark}) as job:
        ready(job)
        killed = job.send(signal.SIGKILL)
        job.finish()
        nothing_left(mark, killed, 5)
    with Job("--network", "loopback", "--grace", "1", flee, env={"TEST_JOB": mark}) as job:
        ready(job)
        os.kill(job.agent(1), signal.SIGKILL)
        assert job.finish().code == 70
        assert not [*marked(mark)]
