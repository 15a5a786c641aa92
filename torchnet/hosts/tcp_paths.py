"""Whether TCP reaches the peers' rails: for networks that filter the preflight's datagrams.

Each worker listens on its rails and answers 64 KiB with 64 KiB, both signed with the job's key, so that neither a
filter's reset nor another program counts as an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import socket
from collections.abc import Callable, Sequence

from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.agent.rendezvous import tune
from torchnet.linux.rtnetlink import family_of
from torchnet.network.interface_selection import Rail

Path = tuple[int, str]  # rail, and a peer's address on it
_NONCE, _PROOF, _SIZE = 16, 32, 64 << 10
_SECONDS = 4.0  # the retransmission of one lost SYN, and more
_CLIENTS = 64  # a rail's connections at a time


class TcpPaths:
    """Answers the peers while it is open, and tries own paths in :meth:`check`.

    A rail whose port another program has does not answer.
    """

    def __init__(self, loop: EventLoop, key: bytes, rails: tuple[Rail, ...], port: int) -> None:
        self._loop, self._key, self._rails, self._port = loop, key, rails, port
        self._listeners: list[socket.socket] = []
        self._connections: dict[socket.socket, bytearray] = {}
        self._missing: set[Path] = set()
        self._carried: set[Path] = set()
        self._done: Callable[[set[Path]], None] | None = None
        self._timer: Timer = loop.later(0, lambda: None)
        for rail in rails:
            listener = socket.socket(socket.AddressFamily(family_of(rail.address)), socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((rail.address, port))
                listener.listen(_CLIENTS)
            except OSError:
                listener.close()
                continue
            listener.setblocking(False)
            self._listeners.append(listener)
            loop.watch(listener, lambda listener=listener: self._accept(listener))  # type: ignore[misc]

    def close(self) -> None:
        self.cancel()
        for listener in self._listeners:
            self._loop.watch(listener)
            listener.close()
        self._listeners = []

    def cancel(self) -> None:
        """Cancel a check, and drop all connections; peers can connect again."""
        self._timer.cancel()
        self._done = None
        for sock in list(self._connections):
            self._drop(sock)

    def check(self, paths: Sequence[Path], done: Callable[[set[Path]], None]) -> None:
        """Try each path, and call ``done`` with those that carry TCP."""
        self._missing, self._carried, self._done = set(paths), set(), done
        self._timer = self._loop.later(_SECONDS, self._finish)
        for path in paths:
            self._try(path)

    def _try(self, path: Path) -> None:
        rail, address = path
        sock = socket.socket(socket.AddressFamily(family_of(address)), socket.SOCK_STREAM)
        sock.setblocking(False)
        tune(sock)
        self._connections[sock] = bytearray()
        try:
            sock.bind((self._rails[rail].address, 0))
            sock.connect((address, self._port))
        except BlockingIOError:
            pass
        except OSError:
            self._ended(sock, path)
            return
        nonce = os.urandom(_NONCE)
        request = self._packet(b"request", nonce)
        self._loop.watch(
            sock, write=lambda: self._write(sock, request, lambda: self._read_reply(sock, path, nonce))
        )

    def _read_reply(self, sock: socket.socket, path: Path, nonce: bytes) -> None:
        def read() -> None:
            data = self._take(sock)
            if data is None:
                self._ended(sock, path)
            elif len(data) >= _SIZE:
                if hmac.compare_digest(bytes(data[:_SIZE]), self._packet(b"reply", nonce)):
                    self._carried.add(path)
                self._ended(sock, path)

        self._loop.watch(sock, read)

    def _ended(self, sock: socket.socket, path: Path) -> None:
        self._drop(sock)
        self._missing.discard(path)
        if not self._missing:
            self._finish()

    def _finish(self) -> None:
        self._timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            done(self._carried)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if len(self._connections) >= _CLIENTS * len(self._rails):
            sock.close()
            return
        sock.setblocking(False)
        tune(sock)
        self._connections[sock] = bytearray()
        self._loop.later(2 * _SECONDS, lambda: self._drop(sock))

        def read() -> None:
            data = self._take(sock)
            if data is None:
                self._drop(sock)
            elif len(data) >= _SIZE:
                nonce = bytes(data[:_NONCE])
                if not hmac.compare_digest(bytes(data[:_SIZE]), self._packet(b"request", nonce)):
                    self._drop(sock)
                    return
                reply = self._packet(b"reply", nonce)
                # The client closes the connection once it has the reply.
                self._loop.watch(
                    sock, write=lambda: self._write(sock, reply, lambda: self._loop.watch(sock, read))
                )

        self._loop.watch(sock, read)

    def _write(self, sock: socket.socket, data: bytes, then: Callable[[], None]) -> None:
        """Send as much as the socket takes; then the rest, and then call ``then``."""
        try:
            sent = sock.send(data)
        except BlockingIOError:
            return
        except OSError:
            self._loop.watch(sock, lambda: None)
            then()  # reading it reports the error
            return
        rest = data[sent:]
        if rest:
            self._loop.watch(sock, write=lambda: self._write(sock, rest, then))
        else:
            self._connections[sock].clear()
            then()

    def _take(self, sock: socket.socket) -> bytearray | None:
        """Return what has been received so far; None at the end."""
        try:
            data = sock.recv(_SIZE)
        except BlockingIOError:
            return self._connections[sock]
        except OSError:
            return None
        if not data:
            return None
        received = self._connections[sock]
        received += data
        return received

    def _drop(self, sock: socket.socket) -> None:
        if self._connections.pop(sock, None) is not None:
            self._loop.watch(sock)
            with contextlib.suppress(OSError):
                sock.close()

    def _packet(self, kind: bytes, nonce: bytes) -> bytes:
        proof = hmac.new(self._key, kind + nonce, hashlib.sha256).digest()
        return (nonce + proof).ljust(_SIZE, b"\0")
