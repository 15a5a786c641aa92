"""Slow calls that signals are heard during: the call has a thread of its own, and the signals this one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from torchnet.runtimes.kubernetes.signals import Signals


class Interrupted(Exception):
    """A signal ended what was being done; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def in_thread(action: Callable[[], Any], signals: Signals, patience: float = 5.0) -> Any:
    """``action()`` in a thread, while signals are heard here; its result, or what it raised.

    Raises:
        Interrupted: a signal came. The call that was under way has been waited for, ``patience`` seconds at most.
    """
    done = threading.Event()
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(action())
        except BaseException as error:  # raised again in the thread that waits
            result.append(error)
        done.set()

    threading.Thread(target=work, name="call", daemon=True).start()
    while not done.wait(0.05):
        taken = signals.take()
        if taken:
            done.wait(patience)
            raise Interrupted(taken[0])
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]
