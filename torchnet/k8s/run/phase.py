"""The phases of a monitored run, and the transitions between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Phase(Enum):
    """How far a run is, from the launcher's view. Each phase has a method and clocks of its own in the monitor."""

    SUBMITTED = "submitted"
    """The list of the run's pods has not arrived yet. --start-timeout and --timeout run."""
    STARTING = "starting"
    """Not all workers of the current attempt have started. --start-timeout and --timeout run."""
    RUNNING = "running"
    """All workers have started. --timeout runs."""
    PAUSED = "paused"
    """The workload is suspended, or has to be read before the pods' states mean anything. No timeout runs."""
    EVICTED = "evicted"
    """A queue has evicted the plain pods. The monitor waits for them to end, within their grace period."""
    FAILING = "failing"
    """A worker has failed. The agents end the other workers; after a deadline, the monitor stops the run."""
    STOPPING = "stopping"
    """The monitor has asked the cluster to stop the run, and waits for the workers, within their grace period."""
    ENDED = "ended"
    """The outcome is known."""


TRANSITIONS: Mapping[Phase, frozenset[Phase]] = MappingProxyType(
    {
        Phase.SUBMITTED: frozenset({Phase.STARTING, Phase.STOPPING, Phase.ENDED}),
        Phase.STARTING: frozenset(
            {Phase.RUNNING, Phase.PAUSED, Phase.EVICTED, Phase.FAILING, Phase.STOPPING, Phase.ENDED}
        ),
        # Back to STARTING: a JobSet has restarted its workers, or a suspension has ended an attempt.
        Phase.RUNNING: frozenset(
            {Phase.STARTING, Phase.PAUSED, Phase.EVICTED, Phase.FAILING, Phase.STOPPING, Phase.ENDED}
        ),
        # Back to RUNNING: the workload was only read, and is not suspended.
        Phase.PAUSED: frozenset({Phase.STARTING, Phase.RUNNING, Phase.EVICTED, Phase.STOPPING, Phase.ENDED}),
        Phase.EVICTED: frozenset({Phase.STOPPING, Phase.ENDED}),
        # A suspension does not matter any more: the failure decides the outcome.
        Phase.FAILING: frozenset({Phase.STOPPING, Phase.ENDED}),
        Phase.STOPPING: frozenset({Phase.ENDED}),
        Phase.ENDED: frozenset(),
    }
)
