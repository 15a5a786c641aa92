"""Output that nobody takes: it never costs the job, whether the reader is slow, gone or a file system that hangs."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest

from tests import needs
from tests.agents_by_hand import start_pair
from tests.hanging_files import mounted
from tests.jobs import Job, lines, receipt, run, script
from tests.namespaces import isolated

pytestmark = pytest.mark.waits

PAUSE = 16  # seconds, longer than any silence that torchnet takes for a loss
# Both ranks talk, then rank 1 prints, and rank 0 waits for it.
PRINT = """
    import os, socket, sys, time
    rank, size = os.environ["RANK"], int(sys.argv[1])
    if rank == "0":
        peer = socket.create_server((os.environ["MASTER_ADDR"], 7000), family=socket.AF_INET6).accept()[0]
        peer.recv(1_000_000, socket.MSG_WAITALL)
    else:
        for _ in range(600):
            try:
                peer = socket.create_connection((os.environ["MASTER_ADDR"], 7000))
                break
            except OSError:
                time.sleep(0.05)
        peer.sendall(bytes(1_000_000))
        line = b"0123456789" * 9 + b"012345678\\n"  # 100 bytes
        for _ in range(size // len(line)):
            os.write(1, line)
        peer.sendall(b"1")
    assert rank == "1" or peer.recv(1) == b"1"
    time.sleep(0.5)  # whose a connection is, is seen while it is open
"""


def test_a_pod_whose_log_nobody_takes_for_a_while(tmp_path: Path) -> None:
    _pauses(tmp_path)


@isolated
def _pauses(folder: Path) -> None:
    size = 5_000_000  # more than torchnet keeps: the rank waits
    flags = ("--stall-timeout", "5", "--stall-action", "stop", script(folder, PRINT), size)
    agents = start_pair(folder, *flags)
    time.sleep(PAUSE)
    assert agents[1].poll() is None
    out, err = agents[1].communicate(timeout=60)
    _, err0 = agents[0].communicate(timeout=60)
    assert (agents[0].returncode, agents[1].returncode) == (0, 0), err0 + err
    assert len(out.splitlines()) == size // 100
    assert "stalled: " not in err0
    assert err0.count("rank 1 waits for the reader of the output") == 1
    (line,) = re.findall(r"^torchnet: receipt: (.*)$", err0, re.MULTILINE)
    assert json.loads(line)["backend_share"] == 1


def test_a_log_that_nobody_ever_takes_does_not_keep_the_agent(tmp_path: Path) -> None:
    _never(tmp_path)


@isolated
def _never(folder: Path) -> None:
    agents = start_pair(folder, script(folder, PRINT), 300_000)
    _, err0 = agents[0].communicate(timeout=60)
    before = time.monotonic()
    assert agents[1].wait(60) == 0
    assert 20 < time.monotonic() - before < 45
    assert agents[0].returncode == 0, err0
    assert '"backend_share":1.0' in err0
    assert agents[1].stderr is not None
    assert "bytes are lost" in agents[1].stderr.read()
    assert agents[1].stdout is not None
    agents[1].stdout.close()


def test_logs_on_a_file_system_that_hangs_by_hand(tmp_path: Path) -> None:
    _hangs(tmp_path)


@isolated
def _hangs(folder: Path) -> None:
    logs = folder / "logs"
    logs.mkdir()
    with mounted(logs):
        agents = start_pair(folder, "--log-dir", logs, script(folder, PRINT), 300_000)
        said = [agent.communicate(timeout=60) for agent in agents]
        assert [agent.returncode for agent in agents] == [0, 0], said
        assert [len(out.splitlines()) for out, _ in said] == [0, 3000]
        assert "receipt: " in said[0][1]
        assert f"--log-dir {logs}" in said[1][1]


def test_logs_on_a_file_system_that_hangs(tmp_path: Path) -> None:
    """The launcher exits with the receipt, although the kernel cannot remove the process that waits."""
    needs.networks()
    logs = tmp_path / "logs"
    logs.mkdir()
    wrap = ["unshare", "-Urm", sys.executable, "-m", "tests.hanging_files", str(logs)]
    command = [*wrap, sys.executable, "-m", "torchnet", "launch"]
    path = tmp_path / "receipt.json"
    began = time.monotonic()
    flags = ("--nnodes", "2", "--log-dir", logs, "--json", path)
    done = run(*flags, script(tmp_path, PRINT), 300_000, command=command)
    assert done.code == 0, done.stderr
    assert time.monotonic() - began < 40
    assert len(lines(done.stdout, 1)) == 3000
    assert f"--log-dir {logs}" in done.stderr
    assert receipt(path)["backend_share"] == 1


def test_ranks_that_wait_for_their_log_are_reported_and_still_stop(tmp_path: Path) -> None:
    needs.networks()
    logs = tmp_path / "logs"
    logs.mkdir()
    wrap = ["unshare", "-Urm", sys.executable, "-m", "tests.hanging_files", str(logs)]
    command = [*wrap, sys.executable, "-m", "torchnet", "launch"]
    flags = ("--nnodes", "2", "--stall-timeout", "3", "--stall-action", "stop", "--timeout", "8")
    with Job(*flags, "--log-dir", logs, script(tmp_path, PRINT), 5_000_000, command=command) as job:
        job.wait_for("rank 1 waits for --log-dir", seconds=30)
        done = job.finish()
    assert done.code == 124
    assert "stalled: " not in done.stderr
    assert "--timeout 8 s" in done.stderr
