"""Handle signals before and after a benchmark's job as the job handles them."""

from __future__ import annotations

import signal
from types import FrameType

from torchnet.signals import Signals

_FIRST = 128  # plus the signal's number gives the exit code


class BenchSignals(Signals):
    """Signals that end a benchmark: each raises KeyboardInterrupt (see :func:`exit_code_of`).

    A job installs its own handlers and restores these when it ends. Afterwards the signals are ignored while the
    results are written.
    """

    def __exit__(self, *_: object) -> None:
        for number in self._handled:
            signal.signal(number, signal.SIG_IGN)

    def check(self) -> None:
        """Raise again if a signal arrived: Python ignores what a handler raises during a fork or in a finalizer."""
        if self.received:
            raise KeyboardInterrupt(self.last)

    def _note(self, number: int, frame: FrameType | None) -> None:
        super()._note(number, frame)
        raise KeyboardInterrupt(number)


def exit_code_of(error: KeyboardInterrupt) -> int:
    """Return the exit code for this interruption."""
    return _FIRST + int(error.args[0] if error.args else signal.SIGINT)


def signal_name(code: int) -> str:
    """Return the name of the signal of such an exit code."""
    return signal.Signals(code - _FIRST).name
