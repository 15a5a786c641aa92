"""The join's server side, on rank 0: lets workers in that prove the token, and bears everybody else.

A stranger who is silent, talks garbage or knows a wrong token costs one descriptor for a few seconds; when there are
many, the oldest goes first.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

from torchnet.agent import handshake
from torchnet.agent.frames import LENGTH, pack
from torchnet.agent.loop import Loop, Timer
from torchnet.kernel import links, sockets
from torchnet.network.table import Row, Table, decode, encode

STRANGERS = 256  # connections that have not proved anything yet
_PATIENCE_SECONDS = 10.0
_ANSWER_LIMIT = 16 << 10
_SOL_TCP_THIN_LINEAR_TIMEOUTS = 16

# Cookies of this process's connections with other agents, those that have ended included: the account has no other way
# to tell control traffic from the job's, since a script may use any port.  A stranger's is never in it.
control_cookies: set[int] = set()

Welcome = Callable[[socket.socket, dict[str, Any], bytes], None]


class Door:
    """Listens on ``address`` and hands on each connection that has proved the token, with its first message."""

    def __init__(self, loop: Loop, token: str, address: str, port: int, welcome: Welcome) -> None:
        self._loop = loop
        self._token = token
        self._welcome = welcome
        self._strangers: dict[socket.socket, tuple[bytes, bytearray, Timer]] = {}
        self.refused = 0  # wrong tokens, for the diagnosis
        self.socket = socket.socket(links.family_of(address), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, port))
        self.socket.listen(4096)
        self.socket.setblocking(False)
        loop.watch(self.socket, self._accept)

    def close(self) -> None:
        """Stop listening, and send strangers away."""
        self._loop.watch(self.socket)
        self.socket.close()
        for stranger in list(self._strangers):
            self._away(stranger)

    def _accept(self) -> None:
        for _ in range(256):
            try:
                sock, _peer = self.socket.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError:  # out of descriptors: the oldest stranger makes room
                if not self._strangers:
                    return
                self._away(next(iter(self._strangers)))
                continue
            if len(self._strangers) >= STRANGERS:
                self._away(next(iter(self._strangers)))
            tune(sock)
            sock.setblocking(False)
            challenge = handshake.challenge()
            timer = self._loop.later(_PATIENCE_SECONDS, lambda sock=sock: self._away(sock))  # type: ignore[misc]
            self._strangers[sock] = (challenge, bytearray(), timer)
            self._loop.watch(sock, lambda sock=sock: self._read(sock))  # type: ignore[misc]
            with contextlib.suppress(OSError):
                sock.send(challenge)

    def _read(self, sock: socket.socket) -> None:
        challenge, buffer, timer = self._strangers[sock]
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        buffer += data
        length = LENGTH.unpack_from(buffer)[0] if len(buffer) >= LENGTH.size else 0
        if not data or length > _ANSWER_LIMIT or len(buffer) > _ANSWER_LIMIT + LENGTH.size:
            self._away(sock)
        elif length and len(buffer) >= LENGTH.size + length:
            signed, rest = (
                bytes(buffer[LENGTH.size : LENGTH.size + length]),
                bytes(buffer[LENGTH.size + length :]),
            )
            try:
                message, proof = handshake.check(self._token, challenge, _object(signed))
            except (ValueError, RecursionError):
                self.refused += 1
                self._away(sock)
                return
            control_cookies.add(sockets.cookie(sock))
            timer.cancel()
            del self._strangers[sock]
            self._loop.watch(sock)
            with contextlib.suppress(OSError):
                sock.send(proof)
            self._welcome(sock, message, rest)

    def _away(self, sock: socket.socket) -> None:
        entry = self._strangers.pop(sock, None)
        if entry is not None:
            entry[2].cancel()
            self._loop.watch(sock)
            sock.close()


def enter(
    token: str, own: str, rank0: str, port: int, message: dict[str, Any], seconds: float
) -> socket.socket:
    """The client's side: connect from the address ``own`` to rank 0's, prove the token, introduce oneself.

    Returns:
        The connection, still blocking.

    Raises:
        OSError: nobody there, or it went away.
        ValueError: somebody is there who is not of this job (another protocol, another token).
    """
    sock = socket.socket(links.family_of(rank0), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        control_cookies.add(sockets.cookie(sock))
        tune(sock)
        sock.settimeout(seconds)
        sock.bind((own, 0))
        sock.connect((rank0, port))
        signed, proof = handshake.answer(token, _exactly(sock, handshake.CHALLENGE_BYTES), message)
        sock.sendall(pack(signed))
        if _exactly(sock, handshake.PROOF_BYTES) != proof:
            raise ValueError("it does not know the token either")
        return sock
    except BaseException:
        sock.close()
        raise


def tune(sock: socket.socket) -> None:
    """A control connection: small messages at once, and retransmissions that stay frequent while a link flaps."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _SOL_TCP_THIN_LINEAR_TIMEOUTS, 1)


def pack_row(row: Row) -> str:
    """One worker's row as text, in the table's own encoding."""
    return base64.b64encode(encode(Table((row,)))).decode()


def unpack_row(text: str) -> Row:
    """The inverse of :func:`pack_row`.

    Raises:
        ValueError, NetworkError: it is none.
    """
    (row,) = decode(base64.b64decode(text, validate=True)).rows
    if not row.rails:
        raise ValueError("a worker without a rail")
    return row


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ValueError(
                "it closed the connection: the token is another job's, or something else listens there"
            )
        data += part
    return data


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
