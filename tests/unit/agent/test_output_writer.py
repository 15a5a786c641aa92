"""Output through a process of its own: in order, complete, and without ever waiting for its reader."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.jobs import until
from torchnet.agent import output_writer
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.output_writer import OutputWriter

Failures = list[tuple[int, str, bool]]


@contextlib.contextmanager
def writer(
    *destinations: str, late: Collection[int] = ()
) -> Iterator[tuple[EventLoop, OutputWriter, Failures]]:
    loop = EventLoop()
    failures: Failures = []
    made = OutputWriter(loop, destinations, lambda *failure: failures.append(failure), late)
    (pid,) = output_writer.pids
    try:
        yield loop, made, failures
    finally:
        assert made.drain(30)
        made.close()
        os.waitpid(pid, 0)
        assert not output_writer.pids
        loop.close()


def test_everything_arrives_in_order_in_each_file(tmp_path: Path) -> None:
    first, second = tmp_path / "new folder" / "first", tmp_path / "second"
    with writer(str(first), str(second)) as (_, made, failures):
        for number in range(2000):
            made.write(number % 2, b"%d\n" % number)
        made.write(0, b"x" * 3_000_000)
    assert first.read_bytes() == b"".join(b"%d\n" % n for n in range(0, 2000, 2)) + b"x" * 3_000_000
    assert second.read_bytes() == b"".join(b"%d\n" % n for n in range(1, 2000, 2))
    assert failures == []


def test_a_late_file_exists_once_there_is_data_for_it(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("log", "folder/error", "folder/none")]
    with writer(*map(str, paths), "/dev/null/x", late={1, 2, 3}) as (_, made, failures):
        made.wait_until_opened(10)
        assert [path.exists() for path in paths] == [True, False, False]
        made.write(1, b"error")
        made.write(3, b"lost")
    assert [path.exists() for path in paths] == [True, True, False]
    assert paths[1].read_bytes() == b"error"
    assert [number for number, *_ in failures] == [3]


def test_what_cannot_be_written_is_reported_once_and_costs_the_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    good = tmp_path / "good"
    with writer(str(tmp_path / "file" / "log"), "/dev/full", str(good)) as (_, made, failures):
        made.wait_until_opened(10)
        assert failures == [(0, "File exists", True)]
        for _ in range(3):
            for number in range(3):
                made.write(number, b"data\n")
        assert made.drain(10)
    assert failures[1:] == [(1, "No space left on device", False)]
    assert good.read_bytes() == b"data\n" * 3


def test_a_destination_that_accepts_nothing_blocks_nobody(tmp_path: Path) -> None:
    """A named pipe without a reader, where open(2) waits; then with one that does not read."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with writer(str(path)) as (loop, made, _):
        before = time.monotonic()
        made.wait_until_opened(0.2)
        made.write(0, b"x" * 1_000_000)
        assert not made.drain(0.2)
        assert time.monotonic() - before < 5
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        made.wait_until_opened(10)
        loop.later(0.3, loop.stop)
        loop.run()
        assert 900_000 < made.pending < 1_000_000
        os.set_blocking(reader, True)
        received = 0
        while received < 1_000_000:
            received += len(os.read(reader, 1 << 16))
        assert made.drain(10)
        os.close(reader)


def test_a_writer_that_is_killed_is_noticed(tmp_path: Path) -> None:
    loop, failures = EventLoop(), Failures()
    made = OutputWriter(loop, [str(tmp_path / "log")], lambda *failure: failures.append(failure))
    made.wait_until_opened(10)
    (pid,) = output_writer.pids
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    made.write(0, b"data")
    assert made.drain(10)
    assert [number for number, _, _ in failures] == [0]
    assert not output_writer.pids
    loop.close()


STREAMS = """
    import os, signal, sys
    from torchnet.agent.event_loop import EventLoop
    from torchnet.agent.output_writer import StandardStreams, pids

    loop = EventLoop()
    loop.on_signal(signal.SIGUSR1, loop.stop)
    streams = StandardStreams(loop)
    print(len(pids), file=sys.stderr, flush=True)
    for number in range(1000):
        streams.write("stdout", f"out {number} \\N{SNOWMAN}\\n")
        streams.write("stderr", f"err {number}\\n")
    streams.flush()
"""


def streams(**options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(STREAMS)]
    return subprocess.run(command, text=True, timeout=60, check=True, **options)  # type: ignore[call-overload,no-any-return]


def test_standard_streams_are_complete_and_keep_their_order_where_they_are_one() -> None:
    lines = [(f"out {number} \N{SNOWMAN}", f"err {number}") for number in range(1000)]
    both = streams(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert both.stdout.splitlines() == ["1", *(line for pair in lines for line in pair)]
    apart = streams(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert apart.stdout.splitlines() == [out for out, _ in lines]
    assert apart.stderr.splitlines() == ["2", *(err for _, err in lines)]


def test_what_a_killed_agent_has_written_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = """
        import os, sys
        from torchnet.agent.event_loop import EventLoop
        from torchnet.agent.output_writer import OutputWriter
        made = OutputWriter(EventLoop(), sys.argv[1:], print)
        made.write(0, b"x" * 100_000)
        made.drain(0)
        os.kill(os.getpid(), 9)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(text), log], check=False)
    assert killed.returncode == -9
    until(lambda: log.exists() and log.stat().st_size == 100_000, "the rest is written")


def test_a_reader_that_has_gone_ends_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    done = streams(stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr.splitlines()[-1] == "err 999"
