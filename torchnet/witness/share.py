"""The backend's share of the bytes between hosts, as two bounds. What is not known never raises the lower one."""

from __future__ import annotations

from dataclasses import dataclass, field

SLACK_BYTES, SLACK_SHARE = 128 << 10, 0.005  # neighbour discovery and similar traffic, over a whole run


@dataclass
class Tally:
    """Bytes exchanged with peers, over all hosts.

    Attributes:
        backend: The command's, over the backend.
        elsewhere: The command's, over anything else.
        perhaps_backend: Those that may have been with peers over the backend, by reason.
        perhaps_elsewhere: Those that may have been with peers over something else, by reason.
    """

    backend: int = 0
    elsewhere: int = 0
    perhaps_backend: dict[str, int] = field(default_factory=dict)
    perhaps_elsewhere: dict[str, int] = field(default_factory=dict)

    def doubt(self, on_backend: bool, reason: str, count: int) -> None:
        """Add bytes that cannot be attributed."""
        table = self.perhaps_backend if on_backend else self.perhaps_elsewhere
        if count > 0:
            table[reason] = table.get(reason, 0) + count

    @property
    def slack(self) -> int:
        return max(SLACK_BYTES, int(SLACK_SHARE * (self.backend + self.elsewhere)))


def bounds(tally: Tally) -> tuple[float, float] | None:
    """Return the lowest and the highest share that the bytes allow; None if nothing was exchanged."""
    over, aside = sum(tally.perhaps_backend.values()), sum(tally.perhaps_elsewhere.values())
    everything = tally.backend + tally.elsewhere
    if everything + over == 0:
        return None
    lowest = tally.backend / (everything + aside) if everything + aside else 0.0
    return round(lowest, 6), round((tally.backend + over) / (everything + over), 6)
