"""Signals before and after the job of a benchmark end it as they would during the job."""

from __future__ import annotations

import signal
from types import FrameType

from torchnet.signals import Signals

_FIRST = 128  # an exit code is this and the signal's number


class BenchSignals(Signals):
    """Signals that end a benchmark: each raises KeyboardInterrupt (see :func:`code_of`).

    A job listens to them itself, and gives them back. Afterwards they are ignored, for the results.
    """

    def __exit__(self, *_: object) -> None:
        for number in self._heeded:
            signal.signal(number, signal.SIG_IGN)

    def check(self) -> None:
        """Raise it again, if one has come: what a handler raises amid a fork or a finalizer, Python ignores."""
        if self.came:
            raise KeyboardInterrupt(self.last)

    def _note(self, number: int, frame: FrameType | None) -> None:
        super()._note(number, frame)
        raise KeyboardInterrupt(number)


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of what was interrupted so."""
    return _FIRST + int(error.args[0] if error.args else signal.SIGINT)


def name_of(code: int) -> str:
    """The signal's, of such an exit code."""
    return signal.Signals(code - _FIRST).name
