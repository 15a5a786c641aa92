"""What a test does beside what it tries, signals above all: one that comes late would be pytest's own Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torchnet.signals import Signals


class _Left(Exception):
    """What this was done beside has ended."""


class _Gate:
    def __init__(self) -> None:
        self.left, self.lock = threading.Event(), threading.Lock()


_own = threading.local()


def interrupt(number: int = signal.SIGINT) -> None:
    """Send this process a signal; within :func:`aside`, unless it is left already."""
    gate: _Gate = getattr(_own, "gate", None) or _Gate()
    with gate.lock:
        if gate.left.is_set():
            raise _Left
        os.kill(os.getpid(), number)


def until(done: Callable[[], object]) -> None:
    """Within :func:`aside`: wait for this."""
    while not done():
        pause(0.01)


def pause(seconds: float) -> None:
    """Within :func:`aside`: let so much time pass."""
    if _own.gate.left.wait(seconds):
        raise _Left


@contextmanager
def aside(*steps: Callable[[], object] | float) -> Iterator[None]:
    """Take ``steps`` in a thread, numbers as pauses; what is left of them at the block's end is not taken.

    Raises what one of them raised, at the block's end.
    """
    gate = _Gate()
    failed: list[BaseException] = []

    def work() -> None:
        _own.gate = gate
        try:
            for step in steps:
                if callable(step):
                    step()
                else:
                    pause(step)
        except _Left:
            pass
        except BaseException as error:
            failed.append(error)

    before = signal.getsignal(signal.SIGINT)
    if (
        before is signal.default_int_handler
    ):  # where what is tried hears signals later, or not to the block's end
        signal.signal(signal.SIGINT, lambda *_: None)
    thread = threading.Thread(target=work, name="aside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with gate.lock:
            gate.left.set()
        thread.join(30)
        signal.signal(signal.SIGINT, before)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


def hearing() -> Iterator[Signals]:
    """For a fixture: signals are heard, as a command hears them."""
    with Signals() as made:
        yield made
