"""How long a small message takes there and back."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from time import perf_counter

from torchnet.bench.worker import tcp

BYTES = 64
_WARM = 50  # at most so many before they count: routes, neighbours, the processor's own sleep
_SILENCE = 10.0  # seconds without an answer


@dataclass(frozen=True)
class RoundTrips:
    """Seconds."""

    count: int
    p50: float
    p99: float
    least: float


class Echo:
    """The end that answers; ``port`` is what the other one needs."""

    def __init__(self, address: str) -> None:
        self._server = tcp.listen(address, 1)
        self.port = int(self._server.getsockname()[1])

    def serve(self, peer: str) -> None:
        """Answer ``peer`` until it hangs up.

        Raises:
            OSError: it does not come, or falls silent.
        """
        with self._server, tcp.accept(self._server, peer) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_SILENCE)
            while data := connection.recv(BYTES):
                connection.sendall(data)


def measure(own: str, peer: str, port: int, count: int) -> RoundTrips:
    """``count`` messages to an :class:`Echo` and back, one after the other, after some that do not count.

    Raises:
        OSError: the other end cannot be reached, went away, or falls silent.
    """
    found = []
    message = bytes(BYTES)
    with tcp.connect(own, peer, port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_SILENCE)
        for number in range(-min(_WARM, count), count):
            began = perf_counter()
            connection.sendall(message)
            left = BYTES
            while left:
                got = len(connection.recv(left))
                if not got:
                    raise ConnectionError(f"{peer} hung up between two messages")
                left -= got
            if number >= 0:
                found.append(perf_counter() - began)
    found.sort()
    return RoundTrips(count, share(found, 0.5), share(found, 0.99), found[0])


def share(ordered: list[float], part: float) -> float:
    """The least of the sorted figures that at least this part of them does not exceed (nearest rank)."""
    return ordered[max(0, -int(-len(ordered) * part // 1) - 1)]
