"""Signals that come between the jobs of one benchmark, and before and behind each, end it as they would amid a job."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FIRST = 128  # an exit code is this and the signal's number


@contextmanager
def listening() -> Iterator[None]:
    """Each of them raises KeyboardInterrupt (see :func:`code_of`); afterwards they are ignored, for the results.

    A job listens to them itself, and gives them back. What this process was told to ignore (nohup) stays ignored.
    """
    heeded = [one for one in _NUMBERS if signal.getsignal(one) != signal.SIG_IGN]
    for one in heeded:
        signal.signal(one, _stop)
    try:
        yield
    finally:
        for one in heeded:
            signal.signal(one, signal.SIG_IGN)


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of what was interrupted so."""
    return _FIRST + int(error.args[0] if error.args else signal.SIGINT)


def name_of(code: int) -> str:
    """The signal's, of such an exit code."""
    return signal.Signals(code - _FIRST).name


def _stop(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
