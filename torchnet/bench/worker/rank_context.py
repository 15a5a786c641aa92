"""Where a rank of a benchmark stands, and what the ranks tell each other beside the measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

# For a slow node's measurement in between. A rank that is gone ends the job long before, through its agent.
PATIENCE = timedelta(hours=1)


@dataclass
class RankContext:
    """``networks``: names of interfaces, the backend's rails first. ``addresses``: of each node's interfaces, by node
    and name.

    All waiting is in the store's connection: a rank that waits uses no core and sends nothing, whereas a barrier of
    Gloo's would do both. All ranks must call :meth:`barrier` and :meth:`exchange` in the same order.
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
            torch.distributed.DistNetworkError: rank 0's store is gone.
            torch.distributed.DistStoreError: a rank did not come within an hour.
        """
        self._turn += 1
        key = f"barrier/{self._turn}"
        if self.store.add(key, 1) == self.ranks:
            self.store.set(f"{key}/all", "")
        self.store.wait([f"{key}/all"], PATIENCE)

    def exchange(self, text: str) -> list[str]:
        """Every rank's text, in the order of the ranks; raises as :meth:`barrier` does."""
        self._turn += 1
        self.store.set(f"text/{self._turn}/{self.rank}", text)
        keys = [f"text/{self._turn}/{rank}" for rank in range(self.ranks)]
        self.store.wait(keys, PATIENCE)
        # One question for all of them: one for each would be a round trip for each rank, on each rank.
        return [text.decode() for text in self.store.multi_get(keys)]
