"""Open files: who starts or follows many nodes holds several for each."""

from __future__ import annotations

import resource

from torchnet.errors import UsageError

_BASE = 64  # of Python itself, the console, and what is open for a moment


def allow(count: int, what: str, fewer: str) -> None:
    """Raise this process's own limit to ``count`` files and some.

    Args:
        what: what needs them, for the message.
        fewer: what else can be done about it.

    Raises:
        UsageError: more than the machine allows.
    """
    need = _BASE + count
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    allowed = hard
    try:
        if hard == resource.RLIM_INFINITY or hard >= need:
            resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
            return
    except (OSError, ValueError):
        allowed = soft  # a Mac's kernel has a limit of its own below an unlimited one
    raise UsageError(
        f"{what} need {need} open files, and {allowed} are allowed here", fix=f"ulimit -n {need}, or {fewer}"
    )
