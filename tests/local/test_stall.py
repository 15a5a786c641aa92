"""A job that lives and does not move: told within --stall-timeout, with each rank's stack; it goes on, or stops."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path

import pytest

from tests.jobs import Job, lines, receipt, run, script

pytestmark = pytest.mark.waits

# Both ranks exchange for a while; then rank 1 is held up elsewhere, and rank 0 waits for it.
STALL = """
    import os, socket, sys, time

    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ["RANK"] == "0":
        peer = socket.create_server(place, family=socket.AF_INET6).accept()[0]
    else:
        for _ in range(600):
            try:
                peer = socket.create_connection(place)
                break
            except OSError:
                time.sleep(0.05)

    def exchange(times):
        for _ in range(times):
            peer.sendall(bytes(10_000))
            assert len(peer.recv(10_000, socket.MSG_WAITALL)) == 10_000
            time.sleep(0.1)

    def wait_for_the_other():
        return peer.recv(10_000, socket.MSG_WAITALL)

    def load_a_batch():
        while not os.path.exists("go"):
            time.sleep(0.05)

    exchange(5)
    print("still", flush=True)
    if os.environ["RANK"] == "1":
        load_a_batch()
        peer.sendall(bytes(10_000))
    else:
        assert len(wait_for_the_other()) == 10_000
    print("on", flush=True)
    exchange(3)
"""


# What a hung collective looks like under NCCL, whose monitor polls the store; on another port, it may as well be a
# small collective every second.
POLLS = """
    import os, socket, time

    port = int(os.environ["MASTER_PORT"]) if {port!r} == "store" else 29700
    place = os.environ["MASTER_ADDR"], port
    if os.environ["RANK"] == "0":
        peer = socket.create_server(place, family=socket.AF_INET6).accept()[0]
        while data := peer.recv(196, socket.MSG_WAITALL):
            peer.sendall(b"1234")
    else:
        for _ in range(600):
            try:
                peer = socket.create_connection(place)
                break
            except OSError:
                time.sleep(0.05)
        for _ in range({seconds}):
            peer.sendall(bytes(196))
            peer.recv(4, socket.MSG_WAITALL)
            time.sleep(1)
"""


def test_polls_of_the_store_do_not_hide_a_stall(tmp_path: Path) -> None:
    text = script(tmp_path, POLLS.format(port="store", seconds=600))
    with Job("--stall-timeout", "4", "--stall-action", "stop", text) as job:
        stalled = job.wait_for("stalled: ", seconds=30)
        done = job.finish()
    assert done.code == 124, done.stderr
    assert done.at - stalled < 20


def test_a_trickle_is_told_and_goes_on(tmp_path: Path) -> None:
    text = script(tmp_path, POLLS.format(port="other", seconds=11))
    done = run("--stall-timeout", "3", "--stall-action", "stop", text)
    assert done.code == 0, done.stderr
    assert done.stderr.count("slow: ") == 1, done.stderr
    assert "line" in done.stderr[done.stderr.index("slow: ") :], "with stacks"
    assert "stalled: " not in done.stderr


def test_small_collectives_with_long_pauses_are_no_stall(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    text = """
        import time, warnings
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        import torch, torch.distributed as dist

        dist.init_process_group("gloo")
        for _ in range(3):
            dist.all_reduce(torch.ones(1))
            time.sleep(6)
        dist.destroy_process_group()
    """
    done = run("--stall-timeout", "9", "--stall-action", "stop", script(tmp_path, text), seconds=120)
    assert done.code == 0, done.stderr
    assert "stalled: " not in done.stderr


def test_a_stall_is_told_and_the_job_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    with Job("--stall-timeout", "2", "--json", path, script(tmp_path, STALL), cwd=tmp_path) as job:
        still = max(job.wait_for(rf"\[rank {rank}\] still", on="stdout") for rank in (0, 1))
        told = job.wait_for("stalled: ")
        # The deadline, a beat of the bytes' count (1 s) and the time to write the stacks down (0.5 s).
        assert 2 <= told - still < 2 + 2.5
        job.wait_for(r"rank 1:\n(torchnet:   .*\n)+")
        time.sleep(2.2)
        assert job.text("stderr").count("stalled:") == 1, "once is enough"
        (tmp_path / "go").touch()
        done = job.finish()
    assert done.code == 0, done.stderr
    report = re.search(r"torchnet: warning: stalled.*\n(torchnet:   .*\n)+", done.stderr)
    assert report is not None, done.stderr
    said = report[0].splitlines()
    assert re.search(
        r"no rank waits in torch: rank 0 at script.py:\d+ in wait_for_the_other, rank 1 at", said[1]
    )
    assert re.search(r"rank 1 at script.py:\d+ in load_a_batch", said[1])
    stacks = "\n".join(said[2:])
    zero, one = stacks.split("rank 1:")
    assert "rank 0:" in zero
    assert re.search(r"script\.py\", line \d+ in wait_for_the_other\n.*line \d+ in <module>", zero)
    assert re.search(r"script\.py\", line \d+ in load_a_batch\n.*line \d+ in <module>", one)
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [["still", "on"]] * 2
    assert receipt(path)["exit_code"] == 0


def test_a_stall_stops_the_job_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    arguments = ("--stall-timeout", "2", "--stall-action", "stop", "--json", path, script(tmp_path, STALL))
    with Job(*arguments, cwd=tmp_path) as job:
        still = max(job.wait_for(rf"\[rank {rank}\] still", on="stdout") for rank in (0, 1))
        done = job.finish()
    assert done.code == 124
    assert done.at - still < 2 + 2.5 + 10
    found = receipt(path)
    assert (found["exit_code"], found["failure"]["kind"]) == (124, "timeout")
    assert found["reason"].startswith("stalled: ")
    codes = [rank["exit_code"] for rank in found["ranks"]]
    # Whoever gets SIGTERM last may have failed by then, because its peer had gone.
    assert 143 in codes
    assert set(codes) <= {143, 1}
    # What it waited for stands before the end, and the sentence is the root cause.
    assert "in load_a_batch" in done.stderr
    assert "root cause: stalled: " in done.stderr


def test_a_process_that_cannot_be_asked_is_left_alone(tmp_path: Path) -> None:
    """It has no handler for the signal by which stacks are asked for, and would die of it."""
    text = STALL.replace(
        "load_a_batch()\n        peer",
        "peer.set_inheritable(True)\n        os.execvp('sleep', ['sleep', '600'])\n        peer",
    )
    assert text != STALL
    with Job("--stall-timeout", "1", "--stall-action", "stop", script(tmp_path, text)) as job:
        done = job.finish()
    assert done.code == 124, done.stderr
    assert "rank 1: no Python stack" in done.stderr
    assert "in wait_for_the_other" in done.stderr


def test_who_waits_in_torch_for_whom(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    text = """
        import time, warnings
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        import torch, torch.distributed as dist

        def save_a_checkpoint():
            time.sleep(600)

        dist.init_process_group("gloo")
        dist.all_reduce(torch.ones(100_000))
        if dist.get_rank() == 1:
            save_a_checkpoint()
        dist.all_reduce(torch.ones(100_000))
    """
    with Job("--stall-timeout", "2", "--stall-action", "stop", script(tmp_path, text)) as job:
        done = job.finish(120)
    assert done.code == 124, done.stderr
    who = (
        r"waiting: rank 0 in all_reduce \(script.py:\d+\); for: rank 1 at script.py:\d+ in save_a_checkpoint"
    )
    assert re.search(who, done.stderr), done.stderr


def test_no_stall_without_a_timeout(tmp_path: Path) -> None:
    with Job("--stall-timeout", "0", script(tmp_path, STALL), cwd=tmp_path) as job:
        for rank in (0, 1):
            job.wait_for(rf"\[rank {rank}\] still", on="stdout")
        time.sleep(3.5)
        (tmp_path / "go").touch()
        done = job.finish()
    assert done.code == 0, done.stderr
    assert "stalled: " not in done.stderr


def test_a_job_that_moves_is_not_stalled(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    text = STALL.replace("exchange(3)", "exchange(50)")  # twice the time-out and more
    with Job("--stall-timeout", "2", "--stall-action", "stop", script(tmp_path, text), cwd=tmp_path) as job:
        done = job.finish()
    assert done.code == 0, done.stderr
    assert "stalled: " not in done.stderr
