"""The console's end: who reads slowly gets everything, and after a signal nobody is waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from tests.unit.aside import aside, hearing, interrupt
from tests.unit.slow_reader import slow_reader
from torchnet.console.console import Console
from torchnet.k8s.run.launch import close
from torchnet.signals import Signals

signals = pytest.fixture(hearing)


def filled(file: TextIO) -> Console:
    """A console with more in it than a pipe takes."""
    console = Console(file, file, world_size=1, color=False, tty=False)
    for number in range(4000):
        console.event({"event": "output", "rank": 0, "stream": "stdout", "data": f"{number:060d}"})
    assert console.pending
    return console


@contextmanager
def unread() -> Iterator[Console]:
    """A console whose reader does not read, and what it has to say does not fit into the pipe."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        yield filled(file)
        os.close(reading)


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_who_does_not_read_is_not_waited_for_after_a_signal(signals: Signals, seconds: float) -> None:
    with unread() as console:
        began = time.monotonic()
        with aside(seconds, interrupt):
            close(console, signals)
        assert time.monotonic() - began < 5


def test_nor_where_the_job_was_to_end(signals: Signals) -> None:
    with unread() as console:
        began = time.monotonic()
        close(console, signals, stopped=True)
        assert time.monotonic() - began < 5


def test_who_reads_slowly_gets_everything(signals: Signals) -> None:
    with slow_reader(0.5) as (file, got):
        close(filled(file), signals)
    assert got.splitlines() == [f"[rank 0] {number:060d}".encode() for number in range(4000)]
