"""Whom rank 0 lets into the job, room for all of them, and the port that it gives to PyTorch's store."""

from __future__ import annotations

import resource
import socket
import zlib

from torchnet import names
from torchnet.agent.door import STRANGERS
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError
from torchnet.network.table import Row

_OWN_FILES, _PROCESS_FILES = 64, 8  # the agent's own, and for each process pipes, stacks and a log


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


def make_room(spec: AgentSpec) -> None:
    """Allow this process a descriptor for each worker and for strangers; what is usually allowed is 1,024.

    Raises:
        NetworkError: the hard limit does not reach for the workers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = spec.nnodes + _OWN_FILES + _PROCESS_FILES * spec.nproc_per_node
    wanted = least + STRANGERS
    if hard != resource.RLIM_INFINITY:
        if hard < least:
            raise NetworkError(
                f"{spec.name} may open {hard} files, and rank 0 of {spec.nnodes} workers needs {least}",
                fix="ulimit -Hn (in a pod, the container runtime's LimitNOFILE)",
            )
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def store_port(spec: AgentSpec, attempt: int) -> int:
    """A free port for PyTorch's store, another one for each attempt: the last one's may linger in TIME_WAIT.

    Jobs that share a network namespace begin at different ports, so that two that start together do not take one.

    Raises:
        NetworkError: none of the documented range is free.
    """
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    count = len(names.STORE_PORTS)
    first = zlib.crc32(spec.run_id.encode()) + attempt * 7
    for step in range(count):
        port = names.STORE_PORTS[(first + step) % count]
        try:
            # On all interfaces, as the store will: [::], or 0.0.0.0 on a kernel without IPv6.
            with socket.create_server(("", port), family=family, dualstack_ipv6=dual):
                return port
        except OSError:
            continue
    raise NetworkError(
        f"no free port for the store between {names.PORT_FIRST + 1} and {names.PORT_LAST} on {spec.name}",
        fix="ss -tlnp",
    )
