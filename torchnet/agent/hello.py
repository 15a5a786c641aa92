"""What a worker says of itself at rank 0's door, signed with the job's token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchnet.agent.door import pack_row, unpack_row
from torchnet.agent.spec import AgentSpec
from torchnet.network.table import Row


@dataclass(frozen=True)
class Hello:
    """``phase`` is the worker's, ``start`` the job's start attempt, ``known`` the verified table's fingerprint."""

    row: Row
    run: str
    nnodes: int
    phase: str = "all"
    start: str = ""
    known: str = ""

    @classmethod
    def of(cls, spec: AgentSpec, row: Row, known: str = "") -> Hello:
        return cls(row, spec.run_id, spec.nnodes, spec.phase, spec.start, known)

    def message(self) -> dict[str, Any]:
        return {**vars(self), "row": pack_row(self.row)}

    @classmethod
    def read(cls, message: dict[str, Any]) -> Hello:
        """Raises KeyError, TypeError, ValueError, OverflowError, NetworkError: it is none."""
        texts = {name: str(message.get(name, "")) for name in ("start", "known")}
        phase = str(message.get("phase", "all"))
        return cls(unpack_row(message["row"]), str(message["run"]), int(message["nnodes"]), phase, **texts)

    def objection(self, spec: AgentSpec, present: Row | None, *, late: bool) -> str:
        """Why this worker, which knows the token, may still not come in, or "".

        ``present`` is who has its rank already; the same worker may come again.
        """
        rank = self.row.node_rank
        if self.run != spec.run_id:
            return f"it belongs to run {self.run}, this is run {spec.run_id}"
        if self.nnodes != spec.nnodes:
            return f"it was started with --nnodes {self.nnodes}, this job has {spec.nnodes}"
        if self.start != spec.start:
            return f"it belongs to start attempt {self.start or '?'}, this is {spec.start or '?'}"
        if (self.phase == "all") != (spec.phase == "all"):
            return f"it was started with --phase {self.phase}, rank 0 with --phase {spec.phase}"
        if not 0 <= rank < spec.nnodes:
            return f"its node rank {rank} is not below the {spec.nnodes} nodes of this job"
        if late:
            return "the job has started without it"
        if present is not None and present.uid != self.row.uid:
            return f"node rank {rank} is taken by {present.name} ({present.rails[0].address})"
        return ""
