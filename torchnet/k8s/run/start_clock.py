"""The clock of an attempt's start: what counts for --start-timeout, and how long was waited for other things."""

from __future__ import annotations

from torchnet.constants import COLD_START_SECONDS
from torchnet.units import seconds as duration

QUEUE = "its queue"
FIRST_PROGRESS_SECONDS, _LAST_PROGRESS_SECONDS = 60.0, 3600.0  # between two messages, which become rarer


class StartClock:
    """Counts the seconds of one attempt's start.

    Args:
        queue: what messages call that which the run waits for while it is suspended.
    """

    def __init__(self, queue: str = QUEUE) -> None:
        self._queue = queue
        self.seconds = 0.0
        """Seconds of --start-timeout that have passed."""
        self.passed = 0.0
        """Seconds since the attempt began, without those in a queue."""
        self._free: dict[str, float] = {}
        self._next_progress = FIRST_PROGRESS_SECONDS

    def count(self, passed: float, waits_for: str) -> bool:
        """Add the seconds that have passed; return whether they are free, so that no timeout counts them.

        A queue may take as long as it likes. Images and new nodes are free for half an hour, because the agents of the
        other workers wait as long, and because nothing reports that a node will not come.

        Args:
            waits_for: what the run waits for, such as :data:`QUEUE`; "" if only torchnet is to blame.
        """
        self.passed += passed if waits_for != QUEUE else 0.0
        cold = sum(seconds for what, seconds in self._free.items() if what != QUEUE)
        if not waits_for or (waits_for != QUEUE and cold > COLD_START_SECONDS):
            self.seconds += passed
            return False
        self._free[waits_for] = self._free.get(waits_for, 0.0) + passed
        return True

    def progress(self) -> str:
        """How long the run has waited, once a minute at first; "" if that is not due."""
        waited = sum(self._free.values())
        if waited < self._next_progress:
            return ""
        self._next_progress = waited + min(waited, _LAST_PROGRESS_SECONDS)
        parts = [
            f"{duration(one)} for {self._queue if what == QUEUE else what}"
            for what, one in self._free.items()
        ]
        return f"waited {' and '.join(parts)}, which counts for no timeout"
