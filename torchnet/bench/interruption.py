"""Signals before and after the job of a benchmark end it as they would during the job."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FIRST = 128  # an exit code is this and the signal's number


class BenchSignals:
    """Those that end a benchmark. What this process was told to ignore (nohup) stays ignored."""

    def __init__(self) -> None:
        self._came = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Each raises KeyboardInterrupt (see :func:`code_of`); afterwards they are ignored, for the results.

        A job listens to them itself, and gives them back.
        """
        numbers = [one for one in _NUMBERS if signal.getsignal(one) != signal.SIG_IGN]
        for one in numbers:
            signal.signal(one, self._stop)
        try:
            yield
        finally:
            for one in numbers:
                signal.signal(one, signal.SIG_IGN)

    def check(self) -> None:
        """Raise it again, if one has come: what a handler raises amid a fork or a finalizer, Python ignores."""
        if self._came:
            raise KeyboardInterrupt(self._came)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._came = number
        raise KeyboardInterrupt(number)


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of what was interrupted so."""
    return _FIRST + int(error.args[0] if error.args else signal.SIGINT)


def name_of(code: int) -> str:
    """The signal's, of such an exit code."""
    return signal.Signals(code - _FIRST).name
