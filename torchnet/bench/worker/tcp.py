"""Raw TCP between two addresses: what any collective over this path could have at best.

As many streams as asked, each with a thread: the kernel's calls that take the time let other threads run. What is sent
comes from a file in memory by sendfile(2), so that no program's memory is copied; what is received is counted where it
arrives, in slices of the time, after a while that slow start has for itself.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass

CHUNK = 4 << 20  # bytes for one call
_BUFFER = 1 << 20
_PATIENCE = 20.0  # seconds for the other end to come
_RETRANSMITS = struct.Struct("=100xI")  # tcpi_total_retrans in linux/tcp.h's struct tcp_info
_PING = b"\0" * 64


@dataclass(frozen=True)
class Slices:
    """``rates`` are bytes per second, one for each slice of the time."""

    rates: tuple[float, ...]
    received: int


class Receiver:
    """One end: listens on ``address`` from the beginning; ``port`` is what the other one needs."""

    def __init__(self, address: str, streams: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._server = socket.create_server((address, 0), family=family, backlog=streams)
        self._server.settimeout(_PATIENCE)
        self._streams = streams
        self._counts = [0] * streams
        self.port = int(self._server.getsockname()[1])

    def measure(self, warm: float, seconds: float, slices: int) -> Slices:
        """Take what comes for ``warm`` and then ``seconds``, and hang up.

        Raises:
            OSError: the other end does not come, or goes before the time.
        """
        with self._server, contextlib.ExitStack() as stack:
            connections = [stack.enter_context(self._server.accept()[0]) for _ in range(self._streams)]
            threads = [
                threading.Thread(target=self._take, args=(number, one), daemon=True)
                for number, one in enumerate(connections)
            ]
            for thread in threads:
                thread.start()
            time.sleep(warm)
            marks = [(time.monotonic(), sum(self._counts))]
            for _ in range(slices):
                time.sleep(seconds / slices)
                marks.append((time.monotonic(), sum(self._counts)))
            early = [thread for thread in threads if not thread.is_alive()]
            for one in connections:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
        if early:
            raise ConnectionError(f"{len(early)} of {self._streams} streams ended before the time")
        rates = [(b - a) / (then - now) for (now, a), (then, b) in itertools.pairwise(marks)]
        return Slices(tuple(rates), marks[-1][1] - marks[0][1])

    def _take(self, number: int, connection: socket.socket) -> None:
        buffer = bytearray(_BUFFER)
        with contextlib.suppress(OSError):
            while count := connection.recv_into(buffer):
                self._counts[number] += count


def send(own: str, peer: str, port: int, streams: int) -> int:
    """Send to a :class:`Receiver` until it hangs up; how many segments went again.

    Raises:
        OSError: it cannot be reached.
    """
    connections = [_connect(own, peer, port) for _ in range(streams)]
    with os.fdopen(os.memfd_create("torchnet-bench"), "rb+") as file:
        file.truncate(CHUNK)
        again: list[int] = []
        threads = [
            threading.Thread(target=lambda one=one: again.append(_give(one, file.fileno())), daemon=True)
            for one in connections
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(again)


def _give(connection: socket.socket, file: int) -> int:
    with connection:
        with contextlib.suppress(OSError):
            while os.sendfile(connection.fileno(), file, 0, CHUNK):
                pass
        return _retransmits(connection)


def _retransmits(connection: socket.socket) -> int:
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RETRANSMITS.size)
        return int(_RETRANSMITS.unpack(info)[0])
    except (OSError, struct.error):
        return 0


class Echo:
    """The end of :func:`round_trips` that answers."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._server = socket.create_server((address, 0), family=family)
        self._server.settimeout(_PATIENCE)
        self.port = int(self._server.getsockname()[1])

    def serve(self) -> None:
        """Answer one connection until it ends. Raises OSError where nobody comes."""
        with self._server, self._server.accept()[0] as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                while data := connection.recv(len(_PING)):
                    connection.sendall(data)


def round_trips(own: str, peer: str, port: int, count: int) -> list[float]:
    """Seconds of each of ``count`` small messages there and back, in order.

    Raises:
        OSError: the other end cannot be reached, or went away.
    """
    found = []
    with _connect(own, peer, port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(_PING)
            left = len(_PING)
            while left:
                got = len(connection.recv(left))
                if not got:
                    raise ConnectionError("the other end went away")
                left -= got
            found.append(time.perf_counter() - began)
    return found


def _connect(own: str, peer: str, port: int) -> socket.socket:
    """From the own address of this network: the route may know others."""
    connection = socket.create_connection((peer, port), timeout=_PATIENCE, source_address=(own, 0))
    connection.settimeout(None)  # sendfile(2) knows of no time-out: a socket with one does not wait
    return connection
