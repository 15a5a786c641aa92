"""The limit on open files (RLIMIT_NOFILE). Starting or following many nodes takes several descriptors per node."""

from __future__ import annotations

import resource
import sys

from torchnet.errors import UsageError

_BASE = 64  # descriptors of Python itself, the console and short-lived files


def raise_open_files(wanted: int) -> int:
    """Raise this process's soft limit to ``wanted`` files, or as far as the hard limit allows.

    Returns:
        The limit now in effect, never lower than before; sys.maxsize for no limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        return soft  # macOS enforces a kernel limit even where the hard limit is unlimited
    return allowed


def allow(count: int, what: str, fewer: str) -> None:
    """Raise the limit to ``count`` files in addition to the process's own.

    Args:
        what: What needs the files, in the plural, for the message.
        fewer: An alternative to raising the limit, for the message.

    Raises:
        UsageError: The hard limit is too low.
    """
    need = _BASE + count
    allowed = raise_open_files(need)
    if allowed < need:
        raise UsageError(
            f"{what} need {need} open files, but the limit is {allowed}",
            fix=f"ulimit -n {need}, or {fewer}",
        )
