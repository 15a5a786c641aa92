"""The position of a rank in a benchmark, and what ranks exchange besides the measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

# Long enough for a slow node's measurement. If a rank exits, its agent ends the job long before.
PATIENCE = timedelta(hours=1)


@dataclass
class RankContext:
    """``networks`` are names of interfaces, the backend's rails first. ``addresses`` are those of each node's
    interfaces, by node and name.

    Ranks wait in the store's connection: a waiting rank then uses no core and sends nothing, whereas Gloo's barrier
    would do both. All ranks must call :meth:`barrier` and :meth:`exchange` in the same order.
    """

    rank: int
    ranks: int
    node: int
    nodes: int
    local_rank: int
    store: Store
    networks: list[str]
    addresses: dict[int, dict[str, str]] = field(default_factory=dict)
    _turn: int = field(default=0, init=False, repr=False)

    def barrier(self) -> None:
        """Return when all ranks have called it.

        Raises:
            torch.distributed.DistNetworkError: Rank 0's store is gone.
            torch.distributed.DistStoreError: A rank did not arrive within an hour.
        """
        self._turn += 1
        key = f"barrier/{self._turn}"
        if self.store.add(key, 1) == self.ranks:
            self.store.set(f"{key}/all", "")
        self.store.wait([f"{key}/all"], PATIENCE)

    def exchange(self, text: str) -> list[str]:
        """Return every rank's text in the order of the ranks; raises as :meth:`barrier` does."""
        self._turn += 1
        self.store.set(f"text/{self._turn}/{self.rank}", text)
        keys = [f"text/{self._turn}/{rank}" for rank in range(self.ranks)]
        self.store.wait(keys, PATIENCE)
        # One request for all of them: separate requests would cost a round trip per rank, on each rank.
        return [text.decode() for text in self.store.multi_get(keys)]
