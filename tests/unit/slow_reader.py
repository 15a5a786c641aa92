"""A pipe whose reader pauses first, and then reads to the end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def slow_reader(pause: float) -> Iterator[tuple[TextIO, bytearray]]:
    """(its other end, what it has read): the latter is whole when the block is left, and the end is closed then."""
    reading, writing = os.pipe()
    got = bytearray()

    def read() -> None:
        time.sleep(pause)
        while data := os.read(reading, 1 << 16):
            got.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        with os.fdopen(writing, "w") as file:
            yield file, got
    finally:
        thread.join()
        os.close(reading)
