"""What a launcher is to do with a run, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchnet.names import GRACE_SECONDS


@dataclass(frozen=True)
class Wishes:
    """What the launch asked for. Times are seconds. ``stops``: a signal stops the job, and a failure, too; attach only
    looks on. ``keep``: what is stopped stays there. ``detach``: return when all have started, and leave the run, also
    where it has ended by itself by then. ``measure``: the workers were to sample their rails."""

    start_timeout: float | None = None
    timeout: float | None = None
    grace: float = GRACE_SECONDS
    ranks: tuple[int, ...] = ()
    log_dir: str | None = None
    stops: bool = True
    keep: bool = False
    detach: bool = False
    tail: int | None = None
    measure: bool = False


@dataclass(frozen=True)
class Outcome:
    """``receipt`` is None for a launch that was left while its job runs on (``left``: why).

    ``stopped``: the launcher has told the cluster to end the job. ``kept``: its workload and pods stay, as was wished.
    ``commands`` go on with a run that was left.
    """

    receipt: dict[str, Any] | None
    code: int
    left: str = ""
    stopped: bool = False
    kept: bool = False
    commands: tuple[str, ...] = ("attach", "logs", "status", "down")
