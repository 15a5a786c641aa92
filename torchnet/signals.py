"""Queue SIGINT, SIGTERM and SIGHUP, so that the launcher can shut down in an orderly way."""

from __future__ import annotations

import signal
import threading
from collections import deque
from types import FrameType, TracebackType
from typing import Any

_NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def on_main_thread() -> bool:
    """Return whether this is the only thread on which Python allows signal handlers to be set."""
    return threading.current_thread() is threading.main_thread()


class Signals:
    """Context manager that queues SIGINT, SIGTERM and SIGHUP. A signal that was ignored (nohup) stays ignored.

    Off the main thread it receives none, and the handlers stay as they are.
    """

    def __init__(self) -> None:
        self.last = 0
        """The number of the last signal received, including one that `take` has returned; 0 if none."""
        self.count = 0
        """The number of signals received, including those that `take` has returned."""
        numbers = _NUMBERS if on_main_thread() else ()
        self._handled = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        self._received: deque[int] = deque()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in self._handled:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.last = number
        self.count += 1
        self._received.append(number)  # no lock: the handler interrupts this same thread

    @property
    def received(self) -> bool:
        """Whether any signal has been received."""
        return self.count > 0

    def take(self) -> list[int]:
        """Return the signals received since the last call, and empty the queue."""
        taken = []
        while self._received:
            taken.append(self._received.popleft())
        return taken
