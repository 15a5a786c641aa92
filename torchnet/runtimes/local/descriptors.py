"""Open files: the launcher and the process that builds the networks hold several for each node."""

from __future__ import annotations

import resource

from torchnet.errors import UsageError

_BASE, _EACH = 64, 6


def allow(nnodes: int) -> None:
    """Raise this process's own limit as far as the job needs.

    Raises:
        UsageError: more than the machine's administrator allows.
    """
    need = _BASE + _EACH * nnodes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < need:
        raise UsageError(
            f"{nnodes} nodes need {need} open files, and {hard} are allowed here",
            fix=f"ulimit -n {need}, or fewer nodes",
        )
    if soft != resource.RLIM_INFINITY and soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
