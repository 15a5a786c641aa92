"""For tests that change what this process does on signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def kept() -> Iterator[None]:
    """A fixture's function: afterwards the handlers are as before."""
    before = {one: signal.getsignal(one) for one in NUMBERS}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


class Finalizer:
    """A signal comes amid one: Python ignores what the handler raises there."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
