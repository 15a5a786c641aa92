"""A job on a terminal of its own: what is typed, what stands on it, in which state it is left."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pty
import struct
import termios
import time
from collections.abc import Iterator
from typing import Any

from tests import needs
from tests.jobs import PATIENCE, Ended, Job

COLUMNS, ROWS = 100, 30


class Terminal:
    """The near end: :meth:`type` on its keyboard; all that is written to it is ``job.text("stdout")``."""

    def __init__(self, job: Job, near: int, far: int) -> None:
        self.job = job
        self._near = near
        self._far = far
        self._attributes = termios.tcgetattr(far)

    def type(self, text: str) -> None:
        """As if from the keyboard; control characters do what the terminal makes of them."""
        os.write(self._near, text.encode())

    def read(self) -> str:
        """What comes next, where the job does not listen."""
        return os.read(self._near, 1 << 16).decode(errors="replace")

    def finish(self) -> Ended:
        """Wait for the end; echo, line editing and all the rest must then be what they were at the start."""
        self.job.process.wait(PATIENCE)
        at = time.monotonic()
        assert termios.tcgetattr(self._far) == self._attributes
        os.close(self._far)  # it was the last that held this end: the reader comes to its own
        self._far = -1
        return dataclasses.replace(self.job.finish(), at=at)

    def close(self) -> None:
        """Close the window."""
        for descriptor in (self._far, self._near):
            if descriptor >= 0:
                os.close(descriptor)
        self._far = self._near = -1


@contextlib.contextmanager
def on_terminal(
    *arguments: object, env: dict[str, str] | None = None, listen: bool = True, **options: Any
) -> Iterator[Terminal]:
    """Start a job whose controlling terminal, and all three streams, are a new pseudo-terminal."""
    needs.networks()
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    job = Job(
        *arguments,
        env={"TERM": "xterm-256color", "NO_COLOR": "", **(env or {})},
        stdin=far,
        stdout=far,
        stderr=far,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        **options,
    )
    terminal = Terminal(job, near, far)
    try:
        with job:
            if listen:
                job.listen("stdout", near)
            yield terminal
    finally:
        terminal.close()
