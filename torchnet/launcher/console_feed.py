"""A console in an event loop: it writes when its readers take it, and signals do not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torchnet.agent.event_loop import EventLoop
from torchnet.console.console import Console

_TICK_SECONDS = 0.1
STOPPED_SECONDS = 2.0


class ConsoleFeed:
    """Writes what the console holds.

    Args:
        paced: Called after each look at what is left.
    """

    def __init__(self, loop: EventLoop, console: Console, paced: Callable[[], None] = lambda: None) -> None:
        self._loop, self._console, self._paced = loop, console, paced
        self._watched: set[int] = set()
        loop.every(_TICK_SECONDS, self._tick)

    def pace(self) -> None:
        """Write the rest when the readers take it; to be called after an event."""
        waiting = set(self._console.waiting())
        for descriptor in waiting ^ self._watched:
            self._loop.watch(descriptor, write=self._push if descriptor in waiting else None)
        self._watched = waiting
        self._paced()

    def _tick(self) -> None:
        self._console.tick()
        self.pace()

    def _push(self) -> None:
        self._console.push()
        self.pace()


def patience(failure: Mapping[str, Any] | None) -> float | None:
    """Return how many seconds to wait at the end for a reader that does not read; None: as long as the console does.

    Args:
        failure: The job's, with its ``kind``.
    """
    stopped = failure is not None and failure.get("kind") in ("interrupted", "timeout")
    return STOPPED_SECONDS if stopped else None
