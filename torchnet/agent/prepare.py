"""The end of a good preparation: what the working container finds in the folder that both have."""

from __future__ import annotations

from pathlib import Path

from torchnet.agent import hosts
from torchnet.agent.spec import AgentSpec
from torchnet.agent.state import State
from torchnet.network.status import StatusEntry
from torchnet.network.table import Row, Table

HOSTS_COPY = "hosts"  # to be mounted at /etc/hosts


def leave(spec: AgentSpec, row: Row, attachments: tuple[StatusEntry, ...], table: Table) -> None:
    """Write the state and a hosts file with the peers' names. Raises OSError."""
    rank0 = tuple(rail.address for rail in table.rows[0].rails)
    hosts.write_copy(table, spec.run_id, Path(spec.state) / HOSTS_COPY)
    state = State(spec.run_id, spec.node_rank, spec.nnodes, row.uid, spec.start, attachments, rank0, table)
    state.write(spec.state)
