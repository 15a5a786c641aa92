"""Jobs on loopback, side by side on one machine."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

import pytest

from tests.jobs import Job, lines, script
from torchnet import constants
from torchnet.errors import RefusedError
from torchnet.launcher import loopback_source
from torchnet.local import loopback

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


def test_a_block_is_one_jobs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "sample", lambda _range, _count: [77, 78, 79])
    with socket.socket(type=socket.SOCK_DGRAM) as used:
        used.bind((loopback_source.address(0, 77), constants.JOIN_PORT))
        block, reservation = loopback.reserve_block()
        with reservation:
            assert block == 78
            other, another_reservation = loopback.reserve_block()  # although nobody listens at 78 yet
            with another_reservation:
                assert other == 79
                with pytest.raises(RefusedError, match=r"no address of 127"):
                    loopback.reserve_block()
    block, reservation = loopback.reserve_block()
    reservation.close()
    assert block == 77


def test_nobody_takes_a_job_for_stalled_whose_bytes_are_not_counted(tmp_path: Path) -> None:
    words = ("--stall-timeout", "1", "--stall-action", "stop", script(tmp_path, WAIT))
    with Job("--network", "loopback", *words) as job:
        done = job.finish()
    assert done.code == 0, done.stderr
    assert "stalled: " not in done.stderr
    assert done.stderr.count("--stall-action stop has no effect on loopback") == 1
