"""The results of one preflight: what each worker found on its paths."""

from __future__ import annotations

from torchnet.agent import failures
from torchnet.agent.events import Failure
from torchnet.agent.messages import PreflightResult
from torchnet.agent.spec import AgentSpec
from torchnet.network import path_diagnosis, probe_plan
from torchnet.network.peer_table import PeerTable

_EMPTY = PeerTable(())


class PathResults:
    """Collects the workers' results for one peer table.

    Attributes:
        complete: Whether more views would say nothing more: a fault that has no other end was found.
    """

    def __init__(self, spec: AgentSpec, table: PeerTable = _EMPTY) -> None:
        self._spec = spec
        self._table = table
        self._good = 0  # paths
        self._faulty: dict[int, PreflightResult] = {}  # by node rank
        self._views: dict[int, path_diagnosis.PathView] = {}  # by node rank
        self.complete = False

    @property
    def faulty(self) -> int:
        """Number of workers that found faults."""
        return len(self._faulty)

    def add(self, rank: int, result: PreflightResult) -> None:
        if result.view is not None:
            self._views[rank] = result.view
        if result.problems:
            self._faulty[rank] = result
            self.complete = self.complete or result.view is None
        self._good += result.paths

    def failure(self) -> Failure:
        """Return the faults that the first faulty worker found, with their causes as both ends saw them."""
        first = min(self._faulty)
        causes = path_diagnosis.explain(self._table, self._views, self._spec.preflight)
        return failures.preflight_failed(self._table.rows[first].name, self._faulty[first].problems, causes)

    def summary(self) -> str:
        """Return the line of a preflight that found no fault."""
        rails = self._table.rows[0].rails
        wanted = probe_plan.paths(self._spec.nnodes, self._spec.preflight) * len(rails)
        others = "the others carry" if self._good else "all carry"
        rest = "" if self._good >= wanted else f"; {others} TCP"
        return f"{self._good}/{wanted} paths at {rails[0].mtu} bytes{rest}"
