"""When the rest of a console's output is written, and how long the end waits for its reader."""

from __future__ import annotations

import os
from typing import Any

import pytest

from torchnet.agent.event_loop import EventLoop
from torchnet.launcher.console_feed import STOPPED_SECONDS, ConsoleFeed, patience


class Console:
    """Something is left as long as nobody reads from ``write``'s pipe."""

    def __init__(self, write: int, loop: EventLoop) -> None:
        self.left, self.said = True, list[str]()
        self._write, self._loop = write, loop

    def waiting(self) -> list[int]:
        return [self._write] if self.left else []

    def tick(self) -> None:
        self.said.append("tick")

    def push(self) -> None:
        self.said.append("push")
        self.left = False
        self._loop.stop()


def test_the_rest_is_written_as_soon_as_the_reader_takes_it() -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    try:
        while True:
            os.write(write, bytes(4096))
    except BlockingIOError:
        pass
    loop = EventLoop()
    console: Any = Console(write, loop)
    paced: list[bool] = []
    taken: list[bytes] = []
    feed = ConsoleFeed(loop, console, lambda: paced.append(console.left))
    feed.pace()
    loop.later(0.25, lambda: taken.append(os.read(read, 1 << 20)))
    loop.later(20, loop.stop)
    loop.run()
    loop.close()
    for descriptor in (read, write):
        os.close(descriptor)
    assert (set(console.said[:-1]), console.said[-1]) == ({"tick"}, "push")
    assert (set(paced[:-1]), paced[-1]) == ({True}, False)


@pytest.mark.parametrize(
    ("kind", "seconds"), [("interrupted", STOPPED_SECONDS), ("timeout", STOPPED_SECONDS), ("script", None)]
)
def test_only_the_end_of_a_stopped_job_does_not_wait_for_a_reader(kind: str, seconds: float | None) -> None:
    assert patience({"kind": kind}) == seconds
    assert patience(None) is None
