"""The rendezvous at rank 0's agent: its server. `torchnet.agent.rendezvous_client` has the workers' side.

The server accepts workers that prove the job's token (torchnet.agent.handshake). A client that is silent, sends garbage
or has a wrong token costs the server one descriptor for a few seconds. If there are many, further connections wait in
the kernel's queue until one is done; the oldest is dropped after a second, which a worker of the job never needs.

It runs over rank 0's first rail, or over another network (the frontend) if an Endpoint there is given. On the backend,
a connection leaves from the worker's own rail, and its routes are checked on both sides. On the frontend, the rails'
addresses in join requests are only claims until the preflight has proved each path.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchnet import constants, rlimits
from torchnet.agent import handshake
from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.agent.framed_socket import LENGTH
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError
from torchnet.linux import sock_diag

if TYPE_CHECKING:
    from torchnet.agent.preflight import TcpCheck
    from torchnet.network.interface_selection import Rail

MAX_UNAUTHENTICATED = 256  # connections
_EVICTABLE_SECONDS = 1.0  # before, a connection is not dropped in favor of another
_OWN_FILES, _PROCESS_FILES = 64, 8  # descriptors: the agent's own; per process: pipes, stacks and a log
_HANDSHAKE_SECONDS = 10.0
_ANSWER_LIMIT = 16 << 10
_SOL_TCP_THIN_LINEAR_TIMEOUTS = 16

# Cookies of this process's connections with other agents, including ended ones. As a script may use any port, the
# account cannot identify control traffic otherwise. The server adds a connection only once it is authenticated.
control_cookies: set[int] = set()

# Gets an authenticated connection, the first message on it, and the bytes that followed.
OnConnection = Callable[[socket.socket, dict[str, Any], bytes], None]


@dataclass(frozen=True)
class Endpoint:
    """Where the rendezvous listens: an address or a name, which is resolved for each connection, and a port."""

    host: str
    port: int = constants.JOIN_PORT

    def resolve(self) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
        """Return the addresses, as (family, socket address).

        Raises:
            OSError: the name has no address.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{self.host!r} is not a host name: {error}") from None
        return [(family, address) for family, _, _, _, address in found]

    def bound(self) -> socket.socket:
        """Return a socket that is bound to the endpoint, for rank 0 to listen on.

        Raises:
            OSError: the endpoint is not an address of this machine, or its port is in use.
        """
        family, address = self.resolve()[0]
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except OSError:
            made.close()
            raise
        return made

    def tcp_check(self, _loop: EventLoop, _key: bytes, _rails: tuple[Rail, ...]) -> TcpCheck | None:
        """Return what tries whether paths carry TCP, where datagrams may be filtered; None if they may not."""
        return None

    def port_fix(self, _port: object) -> str:
        """Return what to do if a port is in use; "" if the program that has it is to be found."""
        return ""

    @property
    def known_host(self) -> str:
        """The host as far as it is known without a request."""
        return self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def raise_open_files(spec: AgentSpec) -> None:
    """Raise the limit of open files, usually 1,024, to fit all workers and unauthenticated clients.

    Raises:
        NetworkError: the hard limit is too low for the workers.
    """
    least = spec.nnodes + _OWN_FILES + _PROCESS_FILES * spec.nproc_per_node
    allowed = rlimits.raise_open_files(least + MAX_UNAUTHENTICATED)
    if allowed < least:
        raise NetworkError(
            f"{spec.name}: rank 0 of {spec.nnodes} workers needs {least} open files, the limit is {allowed}",
            fix="ulimit -Hn (in a pod, the container runtime's LimitNOFILE)",
        )


@dataclass(frozen=True)
class _Client:
    challenge: bytes
    received: bytearray
    since: float
    timer: Timer


class RendezvousServer:
    """Listens on ``endpoint`` and passes on each connection that has proved the token, with its first message.

    Raises:
        OSError: the endpoint is not an address of this machine, or its port is in use.
    """

    def __init__(self, loop: EventLoop, token: str, endpoint: Endpoint, on_connection: OnConnection) -> None:
        self._loop = loop
        self._token = token
        self._on_connection = on_connection
        self._unauthenticated: dict[socket.socket, _Client] = {}  # in the order of their arrival
        self._paused: Timer | None = None  # while no place is free
        self.wrong_tokens = 0
        self.socket = endpoint.bound()
        try:
            self.socket.listen(4096)
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        loop.watch(self.socket, self._accept)

    def close(self) -> None:
        """Stop listening, and close unauthenticated connections."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.watch(self.socket)
        self.socket.close()
        for sock in list(self._unauthenticated):
            self._drop(sock)

    def challenge(self, sock: socket.socket) -> None:
        """Begin the handshake on a new connection."""
        tune(sock)
        sock.setblocking(False)
        challenge = handshake.new_challenge()
        timer = self._loop.later(_HANDSHAKE_SECONDS, lambda: self._drop(sock))
        self._unauthenticated[sock] = _Client(challenge, bytearray(), self._loop.time(), timer)
        self._loop.watch(sock, lambda: self._read(sock))
        with contextlib.suppress(OSError):
            sock.send(challenge)

    def _accept(self) -> None:
        while len(self._unauthenticated) < MAX_UNAUTHENTICATED or self._drop_oldest():
            try:
                sock, _peer = self.socket.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError:  # out of descriptors
                if not self._drop_oldest():
                    break
                continue
            self.challenge(sock)
        self._paused = self._loop.later(_EVICTABLE_SECONDS / 4, self._resume)
        self._loop.watch(self.socket)

    def _resume(self) -> None:
        """Accept again: a place is free, or the oldest connection may be dropped by now."""
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
            self._loop.watch(self.socket, self._accept)

    def _read(self, sock: socket.socket) -> None:
        client = self._unauthenticated[sock]
        buffer = client.received
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        buffer += data
        length = LENGTH.unpack_from(buffer)[0] if len(buffer) >= LENGTH.size else 0
        if not data or length > _ANSWER_LIMIT or len(buffer) > _ANSWER_LIMIT + LENGTH.size:
            self._drop(sock)
        elif length and len(buffer) >= LENGTH.size + length:
            signed, rest = (
                bytes(buffer[LENGTH.size : LENGTH.size + length]),
                bytes(buffer[LENGTH.size + length :]),
            )
            try:
                message, proof = handshake.check_answer(self._token, client.challenge, _object(signed))
            except (ValueError, RecursionError):
                self.wrong_tokens += 1
                self._drop(sock)
                return
            control_cookies.add(sock_diag.cookie(sock))
            self._release(sock)
            with contextlib.suppress(OSError):
                sock.send(proof)
            self._on_connection(sock, message, rest)

    def _drop_oldest(self) -> bool:
        """Drop the oldest connection; return False if none has had enough time yet."""
        for sock, client in self._unauthenticated.items():
            if self._loop.time() - client.since < _EVICTABLE_SECONDS:
                break
            self._drop(sock)
            return True
        return False

    def _drop(self, sock: socket.socket) -> None:
        if sock in self._unauthenticated:
            self._release(sock)
            sock.close()

    def _release(self, sock: socket.socket) -> None:
        """Free the place of a connection."""
        self._unauthenticated.pop(sock).timer.cancel()
        self._loop.watch(sock)
        if self.socket.fileno() >= 0:
            self._resume()


def tune(sock: socket.socket) -> None:
    """Make a connection send small messages at once, and retransmit frequently while a link flaps."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _SOL_TCP_THIN_LINEAR_TIMEOUTS, 1)


def peer_host(sock: socket.socket) -> str:
    """Return the address of the other end; "" for a pair of Unix sockets, or if it has disconnected."""
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    return str(name[0]).removeprefix("::ffff:") if isinstance(name, tuple) else ""  # IPv4 on an IPv6 socket


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
