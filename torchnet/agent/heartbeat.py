"""How often agents send heartbeats, and how long a silence is tolerated."""

from __future__ import annotations

RENEW_SECONDS = 10.0  # to determine a restart's addresses
# A heartbeat in each direction takes rank 0's agent about 20 µs of CPU time, so that it spends at most 1 % of a core.
_WORKERS_PER_SECOND = 500
_LONGEST_SECONDS = 5.0


def heartbeat_seconds(nnodes: int) -> float:
    """Return the time between two heartbeats: a second, and more in jobs of more than 500 workers."""
    return min(max(1.0, nnodes / _WORKERS_PER_SECOND), _LONGEST_SECONDS)


def idle_silence_seconds(nnodes: int) -> float:
    """Return the silence after which a worker that has nothing to wait for is gone."""
    return 3.5 * heartbeat_seconds(nnodes)


def silence_seconds(link_grace: float, nnodes: int) -> float:
    """Return the silence after which a worker is lost: enough for a flap of ``link_grace`` and TCP retransmission."""
    return 2 * link_grace + 3 * heartbeat_seconds(nnodes)
