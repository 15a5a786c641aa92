"""The rendezvous at rank 0's agent: its server and its client.

The server accepts workers that prove the job's token (torchnet.agent.handshake). A client that is silent, sends garbage
or has a wrong token costs the server one descriptor for a few seconds; if there are many, the oldest is dropped first.
A worker retries until the server accepts it.

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
from typing import Any

from torchnet import constants, rlimits
from torchnet.agent import failures, handshake
from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.agent.events import Failure
from torchnet.agent.framed_socket import LENGTH, pack
from torchnet.agent.messages import JoinRequest, encode
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.preflight import wrong_route
from torchnet.agent.spec import AgentSpec
from torchnet.errors import ClusterError, NetworkError, NotYetError, RefusedError, TorchnetError
from torchnet.linux import sock_diag
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import ONE_FAMILY

MAX_UNAUTHENTICATED = 256  # connections
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


class RendezvousServer:
    """Listens on ``endpoint`` and passes on each connection that has proved the token, with its first message.

    Raises:
        OSError: the endpoint is not an address of this machine, or its port is in use.
    """

    def __init__(self, loop: EventLoop, token: str, endpoint: Endpoint, on_connection: OnConnection) -> None:
        self._loop = loop
        self._token = token
        self._on_connection = on_connection
        self._unauthenticated: dict[socket.socket, tuple[bytes, bytearray, Timer]] = {}
        self.wrong_tokens = 0
        family, address = endpoint.resolve()[0]
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(address)
            self.socket.listen(4096)
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        loop.watch(self.socket, self._accept)

    def close(self) -> None:
        """Stop listening, and close unauthenticated connections."""
        self._loop.watch(self.socket)
        self.socket.close()
        for sock in list(self._unauthenticated):
            self._drop(sock)

    def challenge(self, sock: socket.socket) -> None:
        """Begin the handshake on a new connection."""
        if len(self._unauthenticated) >= MAX_UNAUTHENTICATED:
            self._drop_oldest()
        tune(sock)
        sock.setblocking(False)
        challenge = handshake.new_challenge()
        timer = self._loop.later(_HANDSHAKE_SECONDS, lambda: self._drop(sock))
        self._unauthenticated[sock] = (challenge, bytearray(), timer)
        self._loop.watch(sock, lambda: self._read(sock))
        with contextlib.suppress(OSError):
            sock.send(challenge)

    def _accept(self) -> None:
        for _ in range(256):
            try:
                sock, _peer = self.socket.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError:  # out of descriptors
                if not self._unauthenticated:
                    return
                self._drop_oldest()
                continue
            self.challenge(sock)

    def _read(self, sock: socket.socket) -> None:
        challenge, buffer, timer = self._unauthenticated[sock]
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
                message, proof = handshake.check_answer(self._token, challenge, _object(signed))
            except (ValueError, RecursionError):
                self.wrong_tokens += 1
                self._drop(sock)
                return
            control_cookies.add(sock_diag.cookie(sock))
            timer.cancel()
            del self._unauthenticated[sock]
            self._loop.watch(sock)
            with contextlib.suppress(OSError):
                sock.send(proof)
            self._on_connection(sock, message, rest)

    def _drop_oldest(self) -> None:
        self._drop(next(iter(self._unauthenticated)))

    def _drop(self, sock: socket.socket) -> None:
        entry = self._unauthenticated.pop(sock, None)
        if entry is not None:
            entry[2].cancel()
            self._loop.watch(sock)
            sock.close()


def connect_and_authenticate(
    token: str, endpoint: Endpoint, request: JoinRequest | dict[str, Any], seconds: float, source: str = ""
) -> socket.socket:
    """Connect to rank 0, prove the token and send the join request.

    Args:
        seconds: timeout of each step; the connection keeps it.
        source: the own address to connect from; "": the kernel selects one.

    Raises:
        OSError: the connection failed or timed out.
        ValueError: the listener is not of this job (another protocol or token).
    """
    error: OSError | None = None
    for family, address in endpoint.resolve():
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            control_cookies.add(sock_diag.cookie(sock))
            tune(sock)
            sock.settimeout(seconds)
            if source:
                sock.bind((source, 0))
            try:
                sock.connect(address)
            except OSError as failed:  # a name may have addresses that are unreachable from here
                error = failed
                sock.close()
                continue
            message = encode(request) if isinstance(request, JoinRequest) else request
            challenge = _receive_exactly(sock, handshake.CHALLENGE_BYTES)
            signed, proof = handshake.answer_challenge(token, challenge, message)
            sock.sendall(pack(signed))
            if _receive_exactly(sock, handshake.PROOF_BYTES) != proof:
                raise ValueError("the listener does not have the job's token")
            return sock
        except BaseException:
            sock.close()
            raise
    assert error is not None
    raise error


def tune(sock: socket.socket) -> None:
    """Make a connection send small messages at once, and retransmit frequently while a link flaps."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _SOL_TCP_THIN_LINEAR_TIMEOUTS, 1)


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ValueError(
                "the listener closed the connection: its token is another job's, or it is not torchnet"
            )
        data += part
    return data


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


_NOTICE_AFTER = 10  # tries, about 10 s
# After the preparation, rank 0's pod is gone if its address does not even refuse connections for this long: until its
# agent starts, the kernel refuses them.
GONE_SECONDS = 30.0


class RendezvousClient:
    """Retries until ``start_timeout``. Looks up rank 0 each time, as it may start later or be replaced.

    In phase work a replacement cannot be looked up, so the client fails if rank 0's address is gone.

    Args:
        frontend: where the rendezvous listens; None: at rank 0's first rail.
        connected, failed: one of them is called at the end.
        notice: gets a sentence if the join takes long.
    """

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        source: AddressSource,
        rail: Rail,
        request: JoinRequest,
        *,
        frontend: Endpoint | None,
        connected: Callable[[socket.socket], None],
        failed: Callable[[Failure], None],
        notice: Callable[[str], None],
        phase_timer: PhaseTimer,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._source = source
        self._rail = rail
        self._request = request
        self._frontend = frontend
        self._phase_timer = phase_timer
        self._connected = connected
        self._failed = failed
        self._notice = notice
        self._deadline = loop.time() + spec.start_timeout
        self._tries = 0
        self._responded_at = loop.time()  # rank 0's address, if only by refusing a connection
        self._timer = loop.later(0, self._try)

    def cancel(self) -> None:
        self._timer.cancel()

    def retry(self) -> None:
        """Retry after the connection ended before rank 0's first message."""
        self._phase_timer.waited()
        self._responded_at = self._loop.time()
        self._try_later(ConnectionError("rank 0 closed the connection before its first message"))

    def _try(self) -> None:
        self._tries += 1
        self._phase_timer.waited()
        spec = self._spec
        try:
            endpoint, source = self._frontend, ""
            if endpoint is None:
                endpoint, source = Endpoint(self._source.rank0()[0]), self._rail.address
                self._check_path(endpoint.host)
            timeout = min(2.0, 0.25 * self._tries)  # it blocks the event loop
            connection = connect_and_authenticate(spec.token, endpoint, self._request, timeout, source)
        except (RefusedError, ClusterError) as error:
            self._failed(failures.own_error(spec.name, error))
        except NotYetError as error:
            self._try_later(error.error, error.seconds)
        except (ConnectionError, ValueError) as error:
            self._responded_at = self._loop.time()
            self._try_later(error)
        except (OSError, NetworkError, IndexError) as error:
            self._try_later(error)
        else:
            self._phase_timer.own()
            self._connected(connection)

    def _try_later(self, error: Exception, seconds: float = 0.0) -> None:
        self._phase_timer.own()
        spec, now, why = self._spec, self._loop.time(), str(error)
        if spec.phase == "work" and now - self._responded_at > GONE_SECONDS:
            self._failed(failures.rank0_gone(spec.name, GONE_SECONDS, why))
            return
        where = f" at {self._frontend}" if self._frontend else ""
        if now > self._deadline:
            code = error.exit_code if isinstance(error, ClusterError) else 124
            self._failed(failures.join_timeout(spec.name, where, spec.start_timeout, why, code))
            return
        if self._tries == _NOTICE_AFTER:
            reason = error.text if isinstance(error, TorchnetError) else why
            self._notice(f"{spec.name} has not reached rank 0{where} yet and keeps trying: {reason}")
        self._timer = self._loop.later(seconds or min(0.01 * 2 ** min(self._tries, 6), 0.5), self._try)

    def _check_path(self, rank0: str) -> None:
        """Check the path over the backend.

        Raises:
            RefusedError: a retry cannot help.
        """
        own, rail = self._spec.name, self._rail
        if self._spec.loopback:
            return
        if rank0 == rail.address:
            raise RefusedError(
                f"rank 0 and {own} ({rail.interface}) have the same address {rank0}",
                fix="recreate one of them; an ipam with one pool for all nodes keeps addresses apart",
            )
        if (":" in rank0) != (rail.family == 6):
            raise RefusedError(
                f"mixed address families: {own} has IPv{rail.family} {rail.address} on {rail.interface}, rank 0 has "
                f"{rank0}",
                fix=ONE_FAMILY,
            )
        problem = wrong_route(own, "rank 0", rail, rank0)
        if problem:
            raise RefusedError(problem)
