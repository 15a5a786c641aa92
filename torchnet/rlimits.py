"""The limit of open files (RLIMIT_NOFILE): a process that starts or follows many nodes holds several for each."""

from __future__ import annotations

import resource
import sys

from torchnet.errors import UsageError

_BASE = 64  # of Python itself, the console, and what is open for a moment


def raise_open_files(wanted: int) -> int:
    """Raise this process's limit to ``wanted`` files, or as far as the hard limit allows. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        return soft  # a Mac's kernel has a limit of its own below an unlimited one
    return allowed


def allow(count: int, what: str, fewer: str) -> None:
    """Raise the limit to ``count`` files beside the launcher's own.

    Args:
        what: what needs them, for the message.
        fewer: what else can be done about it.

    Raises:
        UsageError: more than the machine allows.
    """
    need = _BASE + count
    allowed = raise_open_files(need)
    if allowed < need:
        raise UsageError(
            f"{what} need {need} open files, and {allowed} are allowed here",
            fix=f"ulimit -n {need}, or {fewer}",
        )
