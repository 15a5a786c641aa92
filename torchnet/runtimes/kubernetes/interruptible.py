"""Slow calls that signals are heard during: the call has a thread of its own, and the signals this one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from torchnet.runtimes.kubernetes.signals import Signals


class Call:
    """``action()`` in a thread of its own, which is not waited for at the program's end."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self._result: Any = None
        self._action, self._done = action, threading.Event()
        threading.Thread(target=self._work, name="call", daemon=True).start()

    def _work(self) -> None:
        try:
            self._result = self._action()
        except BaseException as error:  # raised again in the thread that asks for the result
            self.error = error
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, within so many seconds."""
        return self._done.wait(seconds)

    def result(self) -> Any:
        """What it returned, or raises what it raised; None while it is under way."""
        if self.error is not None:
            raise self.error
        return self._result


class Interrupted(Exception):
    """A signal ended what was being done. ``number`` is the signal's; ``call`` may still be under way."""

    def __init__(self, number: int, call: Call) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.call = number, call


def in_thread(
    action: Callable[[], Any],
    signals: Signals,
    *,
    patience: float = 5.0,
    on_signal: Callable[[], None] = lambda: None,
) -> Any:
    """``action()`` in a thread, while signals are heard here; its result, or what it raised.

    Raises:
        Interrupted: a signal came. ``on_signal``, which tells the action to end, was called at once, and the action has
            been waited for, ``patience`` seconds at most.
    """
    call = Call(action)
    while not call.wait(0.05):
        taken = signals.take()
        if taken:
            on_signal()
            call.wait(patience)
            raise Interrupted(taken[0], call)
    return call.result()
