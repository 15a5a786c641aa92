"""Signals between the jobs of one benchmark, which end it as they would amid a job.

A job listens to them itself. When it has ended, the local session leaves SIGINT and SIGHUP ignored, so that one more of
them costs no receipt; the next job, and its script, would take that for the wish of whoever started them (nohup).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FIRST = 128  # an exit code is this and the signal's number

Handlers = Mapping[signal.Signals, Any]


def handlers() -> Handlers:
    """Of the signals that this process was not told to ignore; asked before its first job."""
    found = {one: signal.getsignal(one) for one in _NUMBERS}
    return {one: handler for one, handler in found.items() if handler != signal.SIG_IGN}


@contextmanager
def listening(before: Handlers) -> Iterator[None]:
    """Each of them raises KeyboardInterrupt (see :func:`code_of`); afterwards they are ignored, for the results."""
    _set(before, _stop)
    try:
        yield
    finally:
        _set(before, signal.SIG_IGN)


@contextmanager
def job(before: Handlers) -> Iterator[None]:
    """A job amid :func:`listening`, which finds the signals as the first one did."""
    for number, handler in before.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        _set(before, _stop)


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of what was interrupted so."""
    return _FIRST + int(error.args[0] if error.args else signal.SIGINT)


def name_of(code: int) -> str:
    """The signal's, of an exit code; "" of any other one."""
    return next((one.name for one in _NUMBERS if code == _FIRST + one), "")


def _set(before: Handlers, handler: Any) -> None:
    for one in before:
        signal.signal(one, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)
