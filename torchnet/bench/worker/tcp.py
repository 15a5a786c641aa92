"""Raw TCP between two addresses: the upper bound for any collective over this path, and the latency of small messages.

Each stream has a thread: the system calls that take the time release the interpreter lock. The sender uses sendfile(2)
on a file in memory and copies nothing. The receiver copies, as every program that reads the bytes has to: with
MSG_TRUNC the figure would be out of reach for any collective. The receiver counts the bytes in slices of time, after a
warm-up for slow start and for the first burst of a token bucket.
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
from time import perf_counter

PING_BYTES = 64
_WARM = 50  # maximum of uncounted messages first, for routes, neighbours and sleeping processors
_SILENCE = 10.0  # seconds to wait for an answer


@dataclass(frozen=True)
class RoundTrips:
    """Round-trip times in seconds."""

    count: int
    p50: float
    p99: float
    least: float


class Echo:
    """The answering end; the other end needs its ``port``."""

    def __init__(self, address: str) -> None:
        self._server = listen(address, 1)
        self.port = int(self._server.getsockname()[1])

    def serve(self, peer: str) -> None:
        """Answer ``peer`` until it closes the connection.

        Raises:
            OSError: The peer does not connect, or stops sending.
        """
        with self._server, accept(self._server, peer) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_SILENCE)
            while data := connection.recv(PING_BYTES):
                connection.sendall(data)


def measure_round_trips(own: str, peer: str, port: int, count: int) -> RoundTrips:
    """Send ``count`` messages to an :class:`Echo` and back, one after the other, after a few that do not count.

    Raises:
        OSError: The other end cannot be reached, closes the connection, or does not answer.
    """
    found = []
    message = bytes(PING_BYTES)
    with connect(own, peer, port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_SILENCE)
        for number in range(-min(_WARM, count), count):
            began = perf_counter()
            connection.sendall(message)
            left = PING_BYTES
            while left:
                got = len(connection.recv(left))
                if not got:
                    raise ConnectionError(f"{peer} closed the connection between two messages")
                left -= got
            if number >= 0:
                found.append(perf_counter() - began)
    found.sort()
    return RoundTrips(count, share(found, 0.5), share(found, 0.99), found[0])


def share(ordered: list[float], part: float) -> float:
    """Return the percentile by nearest rank: the smallest figure that at least this share of the sorted figures does
    not exceed."""
    return ordered[max(0, -int(-len(ordered) * part // 1) - 1)]


CHUNK = 4 << 20  # bytes for one call of sendfile(2)
_BUFFER = 1 << 18
_TIMEVAL = struct.Struct("@ll")
PATIENCE = 10.0  # seconds to wait for the other end
SLICES = 20
_TAIL = 0.1  # seconds that a receiver continues afterwards: the other direction's slices may end later
# struct tcp_info of linux/tcp.h, whose existing fields never move: total_retrans, data_segs_out, and the microseconds
# with data to send (busy_time), limited by the receiver's window (rwnd_limited) and by the send buffer (sndbuf_limited)
_INFO = struct.Struct("=100xI52xI8xQQQ")


@dataclass(frozen=True)
class Received:
    """``rates`` are bytes per second, one for each slice; ``core`` is the busiest stream's share of a core."""

    rates: tuple[float, ...]
    core: float


@dataclass(frozen=True)
class Sent:
    """Segments after the warm-up, and the share of the time in which a window or a buffer limited the streams."""

    repeated: int
    segments: int
    core: float
    window_limited: float | None


def listen(address: str, backlog: int) -> socket.socket:
    """Return a listening socket on any free port.

    Raises:
        OSError: The address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, 0), family=family, backlog=backlog)
    server.settimeout(PATIENCE)
    return server


def connect(own: str, peer: str, port: int) -> socket.socket:
    """Connect from this network's own address, because the route might choose another.

    A peer that acknowledges nothing for PATIENCE counts as gone; the kernel's default is a quarter of an hour.

    Raises:
        OSError: The peer cannot be reached.
    """
    connection = socket.create_connection((peer, port), timeout=PATIENCE, source_address=(own, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(PATIENCE * 1000))
    connection.settimeout(None)  # sendfile(2) does not block on a socket with a Python timeout
    return connection


def accept(server: socket.socket, peer: str) -> socket.socket:
    """Return the connection from ``peer``; connections from other addresses are closed.

    Raises:
        TimeoutError: The peer does not connect.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            connection, caller = server.accept()
        except TimeoutError:
            break
        if caller[0] == peer:
            # The kernel's timeout: with Python's, each recv calls poll(2) first (5 % at 20 Gbit/s).
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(PATIENCE), 0))
            return connection
        connection.close()
    raise TimeoutError(f"{peer} did not connect within {PATIENCE:g} s")


class Receiver:
    """The receiving end. It listens on ``address`` from the start; the other end needs its ``port``."""

    def __init__(self, address: str, streams: int) -> None:
        self._server = listen(address, streams)
        self._streams = streams
        self._counts = [0] * streams
        self._cores = [0.0] * streams
        self.port = int(self._server.getsockname()[1])

    def measure(self, peer: str, warm: float, seconds: float, slices: int = SLICES) -> Received:
        """Receive from ``peer`` for ``warm`` and then ``seconds``, and close the connections.

        Raises:
            OSError: The other end does not connect, or closes early.
        """
        with self._server, contextlib.ExitStack() as stack:
            connections = [stack.enter_context(accept(self._server, peer)) for _ in range(self._streams)]
            threads = [
                threading.Thread(target=self._take, args=(number, one), daemon=True)
                for number, one in enumerate(connections)
            ]
            for thread in threads:
                thread.start()
            time.sleep(warm)
            marks = [(time.monotonic(), sum(self._counts))]
            for number in range(slices):
                time.sleep(max(0.0, marks[0][0] + seconds * (number + 1) / slices - time.monotonic()))
                marks.append((time.monotonic(), sum(self._counts)))
            early = sum(not thread.is_alive() for thread in threads)
            time.sleep(_TAIL)
            for one in connections:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
        if early:
            raise ConnectionError(f"{early} of {self._streams} streams from {peer} ended early")
        rates = [(b - a) / (then - now) for (now, a), (then, b) in itertools.pairwise(marks)]
        return Received(tuple(rates), max(self._cores))

    def _take(self, number: int, connection: socket.socket) -> None:
        buffer = bytearray(_BUFFER)
        began, used = time.monotonic(), time.thread_time()
        with contextlib.suppress(OSError):
            while count := connection.recv_into(buffer):
                self._counts[number] += count
        self._cores[number] = _share(began, used)


def send(own: str, peer: str, port: int, streams: int, warm: float) -> Sent:
    """Send to a :class:`Receiver` until it closes the connections.

    Raises:
        OSError: It cannot be reached, or closes before the measurement starts.
    """
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(own, peer, port)) for _ in range(streams)]
        file = stack.enter_context(os.fdopen(os.memfd_create("torchnet-bench"), "rb+"))
        file.truncate(CHUNK)
        cores = [0.0] * streams
        threads = [
            threading.Thread(target=_give, args=(number, one, file.fileno(), cores), daemon=True)
            for number, one in enumerate(connections)
        ]
        for thread in threads:
            thread.start()
        time.sleep(warm)
        early = sum(not thread.is_alive() for thread in threads)
        before = [_info(one) for one in connections]
        for thread in threads:
            thread.join()
        after = [_info(one) for one in connections]
    if early:
        raise ConnectionError(f"{peer} closed {early} of {streams} streams early")
    repeated, segments, busy, window, buffer = (
        sum(late[field] - first[field] for first, late in zip(before, after, strict=True))
        for field in range(5)
    )
    return Sent(repeated, segments, max(cores), min(1.0, (window + buffer) / busy) if busy else None)


def _give(number: int, connection: socket.socket, file: int, cores: list[float]) -> None:
    began, used = time.monotonic(), time.thread_time()
    with contextlib.suppress(OSError):
        while os.sendfile(connection.fileno(), file, 0, CHUNK):
            pass
    cores[number] = _share(began, used)


def _share(began: float, used: float) -> float:
    """Return this thread's share of one core."""
    return (time.thread_time() - used) / max(time.monotonic() - began, 1e-9)


def _info(connection: socket.socket) -> tuple[int, int, int, int, int]:
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        return _INFO.unpack(info)
    except (OSError, struct.error):  # kernels before 4.10
        return 0, 0, 0, 0, 0
