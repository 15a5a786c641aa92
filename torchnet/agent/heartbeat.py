"""How often agents send heartbeats, and how long a silence is tolerated."""

from __future__ import annotations

HEARTBEAT_SECONDS = 1.0
SILENT_SECONDS = 3.5  # of a worker that has nothing to wait for
RENEW_SECONDS = 10.0  # to determine a restart's addresses


def silence_seconds(link_grace: float) -> float:
    """Return the silence after which a worker is lost: enough for a flap of ``link_grace`` and TCP retransmission."""
    return 2 * link_grace + 3.0
