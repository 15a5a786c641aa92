"""Room for all workers on rank 0, and the port that it gives to PyTorch's store."""

from __future__ import annotations

import resource
import socket
import zlib

from torchnet import constants
from torchnet.agent.rendezvous import STRANGERS
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError

_OWN_FILES, _PROCESS_FILES = 64, 8  # the agent's own, and for each process pipes, stacks and a log


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
    for step in range(len(constants.STORE_PORTS)):
        port = usual_port(spec.run_id, attempt * 7 + step)
        try:
            # On all interfaces, as the store will: [::], or 0.0.0.0 on a kernel without IPv6.
            with socket.create_server(("", port), family=family, dualstack_ipv6=dual):
                return port
        except OSError:
            continue
    raise NetworkError(
        f"no free port for the store between {constants.PORT_FIRST + 1} and {constants.PORT_LAST} on {spec.name}",
        fix="ss -tlnp",
    )


def usual_port(run_id: str, step: int = 0) -> int:
    """Where a run begins to look; without a join, where all its workers can expect the store."""
    return constants.STORE_PORTS[(zlib.crc32(run_id.encode()) + step) % len(constants.STORE_PORTS)]
