"""The port of PyTorch's store on rank 0."""

from __future__ import annotations

import socket
import zlib

from torchnet import constants
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError


def store_port(spec: AgentSpec, attempt: int) -> int:
    """Return a free port, another one for each attempt because the last one may linger in TIME_WAIT.

    Jobs in one network namespace start the search at different ports, so that two rarely choose the same one.

    Raises:
        NetworkError: no port in the documented range is free.
    """
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    for step in range(len(constants.STORE_PORTS)):
        port = usual_port(spec.run_id, attempt * 7 + step)
        try:
            # Bind to all interfaces, as the store will: [::], or 0.0.0.0 on a kernel without IPv6.
            with socket.create_server(("", port), family=family, dualstack_ipv6=dual):
                return port
        except OSError:
            continue
    raise NetworkError(
        f"no free port for the store between {constants.STORE_PORTS[0]} and {constants.STORE_PORTS[-1]} on {spec.name}",
        fix="ss -tlnp",
    )


def usual_port(run_id: str, step: int = 0) -> int:
    """Return the port where a run's search starts; without a join, all its workers expect the store there."""
    return constants.STORE_PORTS[(zlib.crc32(run_id.encode()) + step) % len(constants.STORE_PORTS)]
