"""Whose exit code the job's is, and what stands at the end: the first failing rank's, and its last lines."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.jobs import Job, receipt, run, script

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
    done = run("--nproc-per-node", "2", "--json", path, fail, rank, "exit", 42)
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


def test_a_script_that_ends_early_and_well_does_not_end_the_job(tmp_path: Path) -> None:
    text = """
        import os, time
        time.sleep(1.5 * int(os.environ["RANK"]))
        print("done")
    """
    done = run(script(tmp_path, text))
    assert (done.code, sorted(done.stdout.splitlines())) == (0, ["[rank 0] done", "[rank 1] done"])


def test_a_failing_scripts_code_goes_before_min_share(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    late = script(tmp_path, "import os, sys; sys.exit(9 if os.environ['RANK'] == '1' else 0)")
    done = run("--min-share", "0.5", "--json", path, late)
    assert (done.code, receipt(path)["exit_code"]) == (9, 9), done.stderr


def test_a_share_that_is_not_known_does_not_reach_min_share(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    done = run("--min-share", "0", "--json", path, script(tmp_path, "pass"))
    found = receipt(path)
    assert (done.code, found["backend_share"], found["proof"]) == (5, None, "unknown"), done.stderr
    assert "--min-share 0 % is not reached: the share is unknown" in done.stderr


def test_a_timeout_is_124(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    sleep = script(tmp_path, "print('here', flush=True); import time; time.sleep(600)")
    with Job("--timeout", "2", "--json", path, sleep) as job:
        began = job.wait_for("preflight: ")
        done = job.finish()
    assert done.code == 124
    assert done.at - began < 2 + 10
    found = receipt(path)
    assert (found["exit_code"], found["failure"]["kind"]) == (124, "timeout")
    assert found["reason"] == "the job ran longer than --timeout 2 s"
    assert "root cause: the job ran longer than --timeout 2 s" in done.stderr
    assert [one["exit_code"] for one in found["ranks"]] == [143, 143]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--nnodes", "0", "x.py"), r"nnodes"),
        (("--min-share", "2", "--rate", "fast", "x.py"), r"min_share[\s\S]*rate|rate[\s\S]*min_share"),
        (("--nonsense", "x.py"), r"--nonsense"),
        ((), r"script"),
        (("--redirects", "3", "{script}"), r"--log-dir"),
        (("--nproc-per-node", "gpu", "--env", "CUDA_VISIBLE_DEVICES=", "{script}"), r"0 GPUs"),
    ],
)
def test_what_cannot_be_asked_for_is_2(tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    path = script(tmp_path, "open('started', 'w')")
    done = run(*(word.format(script=path) for word in arguments), cwd=tmp_path)
    assert done.code == 2
    assert re.search(named, done.stderr), done.stderr
    assert not (tmp_path / "started").exists()
