"""Intervals between two requests that grow while nothing changes."""

from __future__ import annotations


class Backoff:
    """Doubles an interval from ``first`` to ``longest`` seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def next(self) -> float:
        """Return the present interval, and double it."""
        now, self._next = self._next, min(self._longest, 2 * self._next)
        return now

    def reset(self) -> None:
        """Begin again with ``first``."""
        self._next = self._first
