"""Jobs on loopback, side by side on one machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.jobs import Job, lines, script
from torchnet.errors import RefusedError
from torchnet.local.loopback import reserve_block

WAIT = """
    import time
    time.sleep(4)
"""
MEET = """
    import os, socket, time
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ["RANK"] == "0":
        # As torch's store does it: on all addresses of the machine.
        server = socket.create_server(("", place[1]))
        print(server.accept()[0].recv(10).decode())
        time.sleep(1)
    else:
        for _ in range(600):
            try:
                peer = socket.create_connection(place)
                break
            except OSError:
                time.sleep(0.05)
        peer.sendall(os.environ["TORCHELASTIC_RUN_ID"].encode())
"""


def test_jobs_on_one_machine_do_not_meet(tmp_path: Path) -> None:
    meet = script(tmp_path, MEET)
    with contextlib.ExitStack() as stack:
        jobs = [
            stack.enter_context(Job("--network", "loopback", "--run-id", f"job-{number}", meet))
            for number in range(3)
        ]
        for number, job in enumerate(jobs):
            done = job.finish()
            assert done.code == 0, done.stderr
            assert lines(done.stdout, 0) == [f"job-{number}"]


def test_two_launchers_never_reserve_the_same_block() -> None:
    with contextlib.ExitStack() as stack:
        reserved = [reserve_block() for _ in range(100)]
        for _, reservation in reserved:
            stack.enter_context(reservation)
        blocks = {block for block, _ in reserved}
        assert len(blocks) == 100
        rest = 254 - len(blocks)
        for _ in range(rest):
            stack.enter_context(reserve_block()[1])
        with pytest.raises(RefusedError, match="no address of 127"):
            reserve_block()


def test_nobody_takes_a_job_for_stalled_whose_bytes_are_not_counted(tmp_path: Path) -> None:
    words = ("--stall-timeout", "1", "--stall-action", "stop", script(tmp_path, WAIT))
    with Job("--network", "loopback", *words) as job:
        done = job.finish()
    assert done.code == 0, done.stderr
    assert "stalled: " not in done.stderr
    assert done.stderr.count("--stall-action stop has no effect on loopback") == 1
