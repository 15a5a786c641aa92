"""Whom rank 0 lets into the job, and the port that it gives to PyTorch's store."""

from __future__ import annotations

import socket

from torchnet import names
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError
from torchnet.network.table import Row


def objection(spec: AgentSpec, other: Row | None, row: Row, run: str, nnodes: int, *, late: bool) -> str:
    """Why a worker that knows the token may still not come in, or "".

    ``run`` and ``nnodes`` are what it was started with, ``other`` is who has its rank already; the same worker may come
    again.
    """
    if run != spec.run_id:
        return f"it belongs to run {run}, this is run {spec.run_id}"
    if nnodes != spec.nnodes:
        return f"it was started with --nnodes {nnodes}, this job has {spec.nnodes}"
    if not 0 <= row.node_rank < spec.nnodes:
        return f"its node rank {row.node_rank} is not below the {spec.nnodes} nodes of this job"
    if late:
        return "the job has started without it"
    if other is not None and other.uid != row.uid:
        return f"node rank {row.node_rank} is taken by {other.name} ({other.rails[0].address})"
    return ""


def store_port(spec: AgentSpec, attempt: int) -> int:
    """A free port for PyTorch's store, another one for each attempt: the last one's may linger in TIME_WAIT.

    Raises:
        NetworkError: none of the documented range is free.
    """
    count = len(names.STORE_PORTS)
    for step in range(count):
        port = names.STORE_PORTS[(attempt * 7 + step) % count]
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("::", port))
            except OSError:
                continue
            return port
    raise NetworkError(
        f"no free port for the store between {names.PORT_FIRST + 1} and {names.PORT_LAST} on {spec.name}",
        fix="ss -tlnp",
    )
