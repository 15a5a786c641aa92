"""SIGINT, SIGTERM and SIGHUP, kept until the main thread asks for them."""

from __future__ import annotations

import signal
from collections import deque
from types import FrameType, TracebackType
from typing import Any

_NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Signals:
    """A context manager: inside it, these signals end nothing. One that was ignored before (nohup) stays so."""

    def __init__(self) -> None:
        self.last = 0
        """The number of the last one that came; it may have been taken since."""
        self._came: deque[int] = deque()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in _NUMBERS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.last = number
        self._came.append(number)  # no lock: a handler may come between any two steps of this thread

    @property
    def came(self) -> bool:
        """Whether one has come at all."""
        return self.last != 0

    def take(self) -> list[int]:
        """Those that have come since the last time."""
        taken = []
        while self._came:
            taken.append(self._came.popleft())
        return taken
