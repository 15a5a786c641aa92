"""Slow calls run in threads, while the main thread waits for signals."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from torchnet.errors import TorchnetError
from torchnet.k8s.client.access import ResponseMonitor
from torchnet.k8s.client.api import ApiClient
from torchnet.signals import Signals

_TURN_SECONDS = 0.05
_UNANSWERED_SECONDS = 0.6  # after a signal, until a server that has said nothing since is not waited for


class ThreadCall:
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
    """A signal ended what was being done. ``number`` is the signal's; ``call`` may still be under way.

    ``again``: another one came while it was waited for.
    """

    def __init__(self, number: int, call: ThreadCall, *, again: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.call, self.again = number, call, again


class Left(TorchnetError):
    """A command that a signal ended; ``text`` says what of it was done. Its exit code is a shell's."""

    def __init__(self, number: int, text: str, *, fix: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}: {text}", fix=fix)
        self.exit_code = 128 + number


def in_thread(
    action: Callable[[], Any],
    signals: Signals,
    *,
    patience: float | Callable[[], float] = 5.0,
    on_signal: Callable[[], None] = lambda: None,
    silence: ResponseMonitor | None = None,
) -> Any:
    """``action()`` in a thread, while signals are heard here; its result, or what it raised.

    ``silence`` of the server that the action asks: it is told of here, and not waited for after a signal.

    Raises:
        Interrupted: a signal came. ``on_signal``, which tells the action to end, was called at once, and the action has
            been waited for, ``patience`` seconds at most (asked for when the signal has come, if it is a function), and
            until another signal at most.
    """
    call = ThreadCall(action)
    while not call.wait(_TURN_SECONDS):
        taken = signals.take()
        if taken:
            on_signal()
            limit = patience() if callable(patience) else patience
            again = len(taken) > 1 or not _ended(call, signals, limit, silence)
            raise Interrupted(taken[0], call, again=again)
        if silence is not None:
            silence.look()
    return call.result()


def _ended(call: ThreadCall, signals: Signals, patience: float, silence: ResponseMonitor | None) -> bool:
    """Wait for its end as long as it is worth it; False where another signal came."""
    began = time.monotonic()
    while not call.wait(_TURN_SECONDS if patience else 0.0):
        if signals.take():
            return False
        passed = time.monotonic() - began
        quiet = passed if silence is None else min(passed, silence.seconds)
        if passed >= patience or (silence is not None and quiet >= _UNANSWERED_SECONDS):
            break
    return True


def ask(action: Callable[[], Any], signals: Signals, undone: str, *, door: ApiClient | None = None) -> Any:
    """``action()``, which asks the cluster and changes nothing there: its result, or what it raised.

    Raises:
        Left: a signal came, and nobody waits for the answer; ``undone`` says what has not been done.
    """
    stop = (lambda: None) if door is None else door.stop.set
    silence = None if door is None else door.access.silence
    try:
        return in_thread(action, signals, patience=0.0, on_signal=stop, silence=silence)
    except Interrupted as error:
        raise Left(error.number, undone) from None
