"""Who reads torchnet's output may be slow, or gone: nothing is lost, nobody is taken for dead, signals still work."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import signal
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from tests import needs
from tests.jobs import Job, receipt, script
from tests.namespaces import isolated
from tests.unit.agents import spec
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import BACKLOG
from torchnet.agent.worker_processes import WorkerProcesses

SLOW = 15  # seconds, longer than any silence that torchnet takes for a loss
PRINT = """
    import os, sys
    line = b"0123456789" * 99 + b"012345678\\n"  # 1000 bytes
    for _ in range(int(sys.argv[1]) // len(line)):
        os.write(1, line)
    os._exit(int(sys.argv[2]))
"""
MB = 1_000_000


@contextlib.contextmanager
def unread(folder: Path, *arguments: object, **options: Any) -> Iterator[Job]:
    """A job whose standard output nobody reads; its standard error goes to the file "stderr"."""
    needs.networks()
    folder.mkdir(exist_ok=True)
    with open(folder / "stderr", "wb") as stderr:
        with Job("--json", folder / "receipt.json", *arguments, read=False, stderr=stderr, **options) as job:
            yield job


def drain(file: IO[Any] | None) -> list[bytes]:
    """All lines up to the end."""
    assert file is not None
    data = bytearray()
    while part := os.read(file.fileno(), 1 << 20):
        data += part
    return bytes(data).splitlines()


def full(file: IO[Any] | None) -> None:
    """Wait until a pipe is full and its writer waits."""
    assert file is not None
    before, count = -1, array.array("i", [0])
    while count[0] == 0 or count[0] != before:
        before = count[0]
        time.sleep(1)
        fcntl.ioctl(file.fileno(), termios.FIONREAD, count)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_a_reader_that_pauses_loses_nothing(tmp_path: Path) -> None:
    """With 50 MB the scripts have to wait; with 1 MB they have long ended, well or not, when the reader is back."""
    text = script(tmp_path, PRINT)
    sizes = {"large": 50 * MB, "small": 1 * MB, "failing": 1 * MB}
    with contextlib.ExitStack() as stack:
        jobs = {
            name: stack.enter_context(
                unread(tmp_path / name, "--grace", "1", text, size // 2, 3 if name == "failing" else 0)
            )
            for name, size in sizes.items()
        }
        time.sleep(SLOW)
        for name, job in jobs.items():
            assert job.process.poll() is None, name
            lines = drain(job.process.stdout)
            assert len(lines) == sizes[name] // 1000, name
            assert {len(line) for line in lines} == {len("[rank 0] ") + 999}
            assert job.process.wait(60) == (3 if name == "failing" else 0)
    for name in ("large", "small"):
        assert receipt(tmp_path / name / "receipt.json")["failure"] is None
        assert "error" not in (tmp_path / name / "stderr").read_text()
    assert receipt(tmp_path / "failing" / "receipt.json")["failure"]["kind"] == "script"
    assert "root cause: rank" in (tmp_path / "failing" / "stderr").read_text()


def test_signals_work_while_nobody_reads(tmp_path: Path) -> None:
    """Row 5, with `torchnet launch … | less`: torchnet itself waits for its reader."""
    with unread(tmp_path, script(tmp_path, PRINT), 50 * MB, 0) as job:
        full(job.process.stdout)
        before = resident(job.pid)
        time.sleep(1)
        assert resident(job.pid) - before < 4 * MB, "the scripts wait, not torchnet's memory"
        sent = job.send(signal.SIGTERM)
        assert job.process.wait(30) == 143
        assert time.monotonic() - sent < 10
    assert receipt(tmp_path / "receipt.json")["exit_code"] == 143
    assert "root cause: stopped by SIGTERM" in (tmp_path / "stderr").read_text()


@isolated
def test_processes_that_start_while_nobody_reads_wait_too() -> None:
    """A restart: the earlier processes' output still waits for its reader."""
    events: list[dict[str, Any]] = []
    reporter: Any = SimpleNamespace(pending=BACKLOG + 1, send=events.append)
    loop = EventLoop()
    processes = WorkerProcesses(loop, replace(spec(), entry="program", command=("yes",)), reporter, print)

    def shown(seconds: float) -> set[object]:
        """The ranks whose output comes in this time."""
        events.clear()
        loop.later(seconds, loop.stop)
        loop.run()
        return {event["rank"] for event in events if event["event"] == "output"}

    assert shown(0.2) == set()
    processes.start(1, "run", lambda _local, _file: dict(os.environ))
    assert shown(0.5) == set()
    assert "ranks 0, 1 wait" in processes.blocked()
    reporter.pending = 0
    assert shown(0.2) == {0, 1}
    processes.stop(loop.stop)
    loop.run()
    processes.close()
    loop.close()


def test_a_reader_that_leaves_ends_nothing(tmp_path: Path) -> None:
    """`| head -1`: the job goes on, its receipt is made, and one line says that its output is not shown."""
    text = """
        import os, time
        for number in range(30):
            print(number, flush=True)
            time.sleep(0.02)
        open(f"done-{os.environ['RANK']}", "w").close()
    """
    with unread(tmp_path, script(tmp_path, text), cwd=tmp_path) as job:
        assert job.process.stdout is not None
        assert os.read(job.process.stdout.fileno(), 6) == b"[rank "
        job.process.stdout.close()
        job.process.stdout = None
        assert job.process.wait(60) == 0
    assert sorted(file.name for file in tmp_path.glob("done-*")) == ["done-0", "done-1"]
    assert receipt(tmp_path / "receipt.json")["exit_code"] == 0
    said = (tmp_path / "stderr").read_text()
    assert said.count("standard output failed") == said.count("Broken pipe") == 1
    assert "receipt of" in said
