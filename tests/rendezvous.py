"""A client of the rendezvous that blocks, for tests."""

from __future__ import annotations

import socket
from typing import Any

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.messages import JoinRequest
from torchnet.agent.rendezvous import Endpoint
from torchnet.agent.rendezvous_client import Attempt


def connect_and_authenticate(
    token: str, endpoint: Endpoint, request: JoinRequest | dict[str, Any], seconds: float, source: str = ""
) -> socket.socket:
    """Join rank 0 and return the connection, with ``seconds`` as its timeout; the attempt's error is raised."""
    loop = EventLoop()
    results: list[socket.socket | OSError | ValueError] = []

    def done(result: socket.socket | OSError | ValueError) -> None:
        results.append(result)
        loop.stop()

    Attempt(loop, token, endpoint, request, done, source=source, connect_seconds=seconds)
    loop.later(seconds, lambda: done(TimeoutError("timed out")))
    loop.run()
    loop.close()
    if not isinstance(results[0], socket.socket):
        raise results[0]
    results[0].settimeout(seconds)
    return results[0]
