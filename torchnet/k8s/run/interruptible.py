"""Run slow calls in threads, while the main thread waits for signals."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from torchnet.errors import TorchnetError
from torchnet.k8s.client.access import ResponseMonitor
from torchnet.k8s.client.api_client import ApiClient
from torchnet.signals import Signals

_TURN_SECONDS = 0.05
_UNANSWERED_SECONDS = 0.6  # after a signal, without a response: then the server is not waited for


class ThreadCall:
    """Runs ``action`` in a daemon thread: the program exits without waiting for it."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self._result: Any = None
        self._action, self._done = action, threading.Event()
        threading.Thread(target=self._work, name="call", daemon=True).start()

    def _work(self) -> None:
        try:
            self._result = self._action()
        except BaseException as error:  # raised again by result(), in the caller's thread
            self.error = error
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the end of the call; return whether it has ended."""
        return self._done.wait(seconds)

    def result(self) -> Any:
        """Return what the action returned, or None while it runs; raise what it raised."""
        if self.error is not None:
            raise self.error
        return self._result


class Interrupted(Exception):
    """A signal interrupted a call.

    Attributes:
        number: the number of the signal.
        call: the interrupted call, which may still be running.
        again: whether a second signal has come meanwhile.
    """

    def __init__(self, number: int, call: ThreadCall, *, again: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.call, self.again = number, call, again


class Left(TorchnetError):
    """A signal ended a command. The exit code is 128 + the signal's number, as in a shell.

    Args:
        text: how far the command got.
    """

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
    """Run ``action`` in a thread while this thread waits for signals.

    Args:
        patience: how many seconds to wait for the action after a signal. A function is called when the signal comes.
        on_signal: called at once when a signal comes; it makes the action end early.
        silence: the monitor of the server that the action calls. Its notices are printed from this thread, and after
            a signal, a server that does not respond is not waited for.

    Returns:
        What the action returned.

    Raises:
        Interrupted: a signal came, and the wait for the action is over: by its end, ``patience``, or another signal.
        BaseException: whatever the action raised.
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
    """Wait for the call until it ends or a limit passes; False if another signal came."""
    began = time.monotonic()
    while not call.wait(_TURN_SECONDS if patience else 0.0):
        if signals.take():
            return False
        passed = time.monotonic() - began
        quiet = passed if silence is None else min(passed, silence.seconds)
        if passed >= patience or (silence is not None and quiet >= _UNANSWERED_SECONDS):
            break
    return True


def ask(action: Callable[[], Any], signals: Signals, undone: str, *, client: ApiClient | None = None) -> Any:
    """Run ``action``, which reads from the cluster and changes nothing on it; a signal ends the wait at once.

    Args:
        undone: what has not been done yet, for the error after a signal.
        client: the client that the action uses, if any; a signal sets its ``stop``.

    Returns:
        What the action returned.

    Raises:
        Left: a signal came.
        BaseException: whatever the action raised.
    """
    stop = (lambda: None) if client is None else client.stop.set
    silence = None if client is None else client.access.silence
    try:
        return in_thread(action, signals, patience=0.0, on_signal=stop, silence=silence)
    except Interrupted as error:
        raise Left(error.number, undone) from None
