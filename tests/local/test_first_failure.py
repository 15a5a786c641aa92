"""Who failed first: that rank's code is the job's, and its last lines stand at the end."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path

import pytest

from tests.jobs import Job, receipt, run, script, until

# Ranks that meet over net1 before anything happens; then rank N does what follows on the command line.
MEET = """
    import os, signal, socket, sys, time
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])

    def connect():
        for _ in range(600):
            try:
                return socket.create_connection(place)
            except OSError:
                time.sleep(0.1)

    if rank == 0:
        server = socket.create_server(place, family=socket.AF_INET6)
        peers = [server.accept()[0] for _ in range(size - 1)]
        for peer in peers:
            peer.sendall(b"go")
    else:
        peers = [connect()]
        assert peers[0].recv(2) == b"go"
"""
FAIL = """
    who, what, number = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if rank == who:
        for line in range(30):
            print("line", line, "of", rank)
        print("oh no", file=sys.stderr)
        if what == "exit":
            os._exit(number)
        os.kill(os.getpid(), number)
    for peer in peers:  # as a collective does: it waits, and its peer's end is its own
        if not peer.recv(1):
            print("connection closed by peer", file=sys.stderr)
            sys.exit(1)
"""


@pytest.fixture
def fail(tmp_path: Path) -> Path:
    return script(tmp_path, MEET + FAIL, "fail.py")


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_42_stays_42_whichever_rank_it_comes_from(fail: Path, tmp_path: Path, rank: int) -> None:
    path = tmp_path / "receipt.json"
    done = run("--nnodes", "2", "--nproc-per-node", "2", "--json", path, fail, rank, "exit", 42)
    assert done.code == 42, done.stderr
    found = receipt(path)
    reason = f"rank {rank} on node-{rank // 2} exited with code 42"
    assert (found["exit_code"], found["reason"]) == (42, reason)
    assert (found["failure"]["kind"], found["failure"]["rank"], found["failure"]["code"]) == (
        "script",
        rank,
        42,
    )
    assert found["failure"]["tail"][-1] == "oh no"
    assert [one["exit_code"] for one in found["ranks"] if one["rank"] == rank] == [42]
    # The others failed right after it, and are not taken for the cause.
    assert {one["exit_code"] for one in found["ranks"] if one["rank"] != rank} <= {1, 143}
    assert len(found["nodes"]) == 2, "both workers' receipts are kept"


def test_the_echo_of_a_failure_is_not_taken_for_it(tmp_path: Path) -> None:
    """A busy machine may tell of the peers' errors first: here the agent that knows better is held up."""
    wait = "\n    print('ready', flush=True)\n" + FAIL
    with Job(script(tmp_path, MEET + wait), 5, "exit", 0) as job:
        for rank in (0, 1):
            job.wait_for(rf"\[rank {rank}\] ready", on="stdout")
        agent, pid = job.agent(1), job.ranks()[1]
        os.kill(agent, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        until(lambda: 0 not in job.ranks(), "rank 0 has failed, too")
        time.sleep(0.4)
        os.kill(agent, signal.SIGCONT)
        done = job.finish()
    assert done.code == 137, done.stderr
    assert "root cause: rank 1 on node-1 was killed by SIGKILL" in done.stderr


def test_what_a_failed_rank_started_does_not_delay_its_failure(tmp_path: Path) -> None:
    """A data loader's processes hold their parent's output open; the peers' errors must not overtake it."""
    start = """
        import subprocess
        if rank == 1:
            subprocess.Popen(["sleep", "60"])
    """
    done = run(script(tmp_path, MEET + start + FAIL), 1, "exit", 42)
    assert done.code == 42, done.stderr
    assert "root cause: rank 1 on node-1 exited with code 42" in done.stderr


def test_a_rank_that_ends_well_hides_no_failure_beside_it(tmp_path: Path) -> None:
    text = """
        import os, subprocess, sys, time
        if os.environ["RANK"] == "0":
            while not os.path.exists("failed"):
                time.sleep(0.01)
            time.sleep(0.1)
        else:
            subprocess.Popen(["sleep", "60"])  # this one's output stays open
            open("failed", "w").close()
            sys.exit(3)
    """
    done = run("--standalone", "--nproc-per-node", 2, script(tmp_path, text), cwd=tmp_path)
    assert done.code == 3, done.stderr


def test_the_root_cause_stands_at_the_end(fail: Path) -> None:
    done = run(fail, 1, "exit", 7)
    assert done.code == 7
    said = done.stderr.splitlines()
    start = said.index("torchnet: error: root cause: rank 1 on node-1 exited with code 7")
    assert said[start + 1] == "torchnet: the last lines of rank 1:"
    assert said[start + 2 :] == [f"[rank 1] line {number} of 1" for number in range(11, 30)] + [
        "[rank 1] oh no"
    ]


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (6, "SIGABRT")])
def test_a_signal_is_128_and_its_number(fail: Path, number: int, name: str) -> None:
    done = run(fail, 1, "signal", number)
    assert done.code == 128 + number
    assert f"root cause: rank 1 on node-1 was killed by {name} (exit code {128 + number})" in done.stderr


def test_the_exception_that_record_caught_is_shown(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    text = """
        import os, time
        from torch.distributed.elastic.multiprocessing.errors import record

        @record
        def main():
            if os.environ["RANK"] == "1":
                raise RuntimeError("the learning rate is a fish")
            time.sleep(60)

        main()
    """
    path = tmp_path / "receipt.json"
    done = run("--json", path, script(tmp_path, text), env={"PYTHONWARNINGS": "ignore"})
    assert done.code == 1
    reason = "rank 1 on node-1 exited with code 1: RuntimeError: the learning rate is a fish"
    assert receipt(path)["reason"] == reason
    assert f"root cause: {reason}" in done.stderr
