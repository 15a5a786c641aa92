"""SIGINT, SIGTERM and SIGHUP, which end what the launcher does in its own time instead of at once."""

from __future__ import annotations

import signal
from collections import deque
from types import FrameType, TracebackType
from typing import Any

_NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Signals:
    """A context manager that queues these signals. A signal that was ignored before (nohup) stays ignored."""

    def __init__(self) -> None:
        self.last = 0
        """The number of the last signal; it may have been taken since."""
        self.count = 0
        """How many have come; they may have been taken since."""
        self._heeded = [number for number in _NUMBERS if signal.getsignal(number) != signal.SIG_IGN]
        self._came: deque[int] = deque()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in self._heeded:
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
        self._came.append(number)  # no lock: a handler may come between any two steps of this thread

    @property
    def came(self) -> bool:
        """Whether one has come at all."""
        return self.count > 0

    def take(self) -> list[int]:
        """Those that have come since the last time."""
        taken = []
        while self._came:
            taken.append(self._came.popleft())
        return taken
