"""A server that does not answer: since when, and the one line about it that a command's people get.

Calls are made in threads and note themselves here; the thread that prints looks, and says what is to be said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

TOLD_SECONDS = 3.0  # without an answer, until that is said
_AGAIN_SECONDS = 60.0  # until it is said again


class Silence:
    """Of one server, for all of a command's calls. ``say`` gets the line, in the thread that calls :meth:`look`."""

    def __init__(self) -> None:
        self.say: Callable[[str], None] | None = None
        self._lock = threading.Lock()
        self._waiting: list[Asked] = []
        self._answered = float("-inf")
        self._told = float("-inf")

    @property
    def seconds(self) -> float:
        """For how long there has been no answer although one is waited for; 0.0 where none is."""
        with self._lock:
            return self._seconds()

    def _seconds(self) -> float:
        if not self._waiting:
            return 0.0
        return time.monotonic() - max(self._answered, min(one.began for one in self._waiting))

    def look(self) -> None:
        """Say that there is no answer, if it is time to, and has not just been said."""
        if self.say is None or time.monotonic() - self._told < _AGAIN_SECONDS:
            return
        with self._lock:
            if self._seconds() < TOLD_SECONDS:
                return
            # Of several the one that is tried for the longest time: a command lives as long as that.
            one = max(self._waiting, key=lambda asked: asked.limit)
            self._told = time.monotonic()
        why = f" ({one.problem})" if one.problem else ""
        what = "no good answer" if one.problem.startswith("HTTP") else "no answer"
        self.say(f"{what} from {one.place} yet{why}; trying for {one.limit:g} s")

    def asking(self, place: str, *, patience: float, read: float, stream: bool) -> Asked:
        """A call, for as long as ``with`` lasts; ``stream``: its beginning may rightly take its time."""
        return Asked(self, place, patience=patience, read=read, counts=not stream)

    def _begin(self, asked: Asked) -> None:
        with self._lock:
            if asked not in self._waiting:
                self._waiting.append(asked)

    def _end(self, asked: Asked, *, answered: bool) -> None:
        with self._lock:
            if asked in self._waiting:
                self._waiting.remove(asked)
            if answered:
                self._answered = time.monotonic()


class Asked:
    """One call with its further tries. ``limit``: seconds that it can take; ``problem``: why the last try failed."""

    def __init__(self, silence: Silence, place: str, *, patience: float, read: float, counts: bool) -> None:
        self.place, self.problem = place, ""
        self.began = time.monotonic()
        self.limit = max(patience, read)  # a server that takes the call and says nothing
        self._silence, self._patience, self._counts = silence, patience, counts

    def __enter__(self) -> Asked:
        if self._counts:
            self._silence._begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._silence._end(self, answered=False)

    def answered(self) -> None:
        """There is an answer, whatever it says."""
        self._silence._end(self, answered=True)

    def failed(self, problem: str) -> None:
        """This try was in vain."""
        self.problem, self.limit = problem, self._patience
        self._silence._begin(self)
