"""Real terminals, pipes, readers that went away, full disks."""

from __future__ import annotations

import io
import os
import pty
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchnet.console.console import Console


@contextmanager
def terminal() -> Iterator[tuple[Any, int]]:
    """A pseudo terminal: a text file to write to, and the descriptor that shows what arrived."""
    above, below = pty.openpty()
    with os.fdopen(below, "w") as file:
        yield file, above
    os.close(above)


def test_a_real_terminal() -> None:
    with terminal() as (file, above):
        console = Console(file, file, world_size=2, environ={})
        console.event({"event": "phase", "node": 0, "phase": "join", "text": "2/2 joined"})
        console.event(
            {"event": "output", "rank": 1, "stream": "stdout", "data": "\x1b[?1049hä\udc80", "end": "\n"}
        )
        console.close()
        shown = ""
        while "x80\r\n" not in shown and select.select([above], [], [], 10)[0]:
            shown += os.read(above, 4096).decode()
    assert "join 2/2 joined" in shown
    assert "\x1b[33m[rank 1]\x1b[0m ä\\x80\r\n" in shown
    assert "1049" not in shown


def test_a_notebook_gets_the_output_in_its_cell() -> None:
    """Its stream says that it is a terminal, and gives the descriptor of the server's."""
    with terminal() as (other, above):

        class OutStream(io.StringIO):
            fileno = other.fileno
            isatty = other.isatty

        cell = OutStream()
        console = Console(cell, cell, world_size=2, environ={})
        console.event({"event": "phase", "node": 0, "phase": "join", "text": "2/2 joined"})
        console.event({"event": "output", "rank": 1, "stream": "stdout", "data": "x", "end": "\n"})
        console.close()
        assert not select.select([above], [], [], 0)[0]
    assert cell.getvalue() == "torchnet: join: 2/2 joined\n[rank 1] x\n"


def test_an_ascii_locale_does_not_break_it(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with open(path, "w", encoding="ascii") as file:
        console = Console(file, file, world_size=1, environ={})
        console.event({"event": "output", "rank": 0, "stream": "stdout", "data": "日本", "end": "\n"})
        console.close()
    assert path.read_text() == "[rank 0] \\u65e5\\u672c\n"


def test_a_reader_that_went_away_does_not_stop_the_job() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    err = io.StringIO()
    with os.fdopen(writing, "w") as file:
        console = Console(err, file, world_size=1, environ={})
        for _ in range(3):
            console.event({"event": "output", "rank": 0, "stream": "stdout", "data": "x", "end": "\n"})
        console.close()
    assert err.getvalue().startswith("torchnet: warning: ")
    assert err.getvalue().endswith(": Broken pipe\n")


def test_a_slow_reader_of_a_non_blocking_pipe_gets_all() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got = bytearray()

    def read() -> None:
        time.sleep(0.2)  # the pipe is full by then
        while data := os.read(reading, 1000):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "w") as file:
        console = Console(io.StringIO(), file, world_size=1, environ={})
        console.event(
            {"event": "output", "rank": 0, "stream": "stdout", "data": "x" * 1_000_000, "end": "\n"}
        )
        console.close()
    reader.join(10)
    os.close(reading)
    assert len(got) == 1_000_010
