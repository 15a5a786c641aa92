"""The standard streams of a process that was started without some of them, or has closed them."""

from __future__ import annotations

import os
import sys


def open_missing_streams() -> None:
    """Open /dev/null for missing streams; the next file or socket would get their descriptors, and their output."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def is_null(descriptor: int) -> bool:
    """Return whether the descriptor is closed, or is /dev/null."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
    except OSError:
        return True
