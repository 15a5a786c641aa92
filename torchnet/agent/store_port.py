"""The port that rank 0 gives to PyTorch's store."""

from __future__ import annotations

import socket
import zlib

from torchnet import constants
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError


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
