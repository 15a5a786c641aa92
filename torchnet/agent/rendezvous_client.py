"""A worker's side of the rendezvous: it retries until rank 0's agent accepts it.

Nothing here blocks the event loop, except for the resolution of a name: when thousands of workers join at once, a
connection waits several seconds in rank 0's queue.
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from torchnet.agent import failures, handshake
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.framed_socket import pack
from torchnet.agent.messages import JoinRequest, encode
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.preflight import wrong_route
from torchnet.agent.rendezvous import Endpoint, control_cookies, tune
from torchnet.agent.spec import AgentSpec
from torchnet.errors import ClusterError, NetworkError, NotYetError, RefusedError, TorchnetError
from torchnet.linux import rtnetlink, sock_diag
from torchnet.network import path_diagnosis
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Rail
from torchnet.network.path_diagnosis import LinkType
from torchnet.network.peer_table import ONE_FAMILY

ADMISSION_SECONDS = 10.0  # from the connection to the server's proof, including the time in rank 0's queue
_CONNECT_SECONDS = 2.0
_NOTICE_SECONDS = 5.0  # since the first failed try
_HINT_AFTER = 6  # tries, about 7 s, all of which timed out
_LONGEST_PAUSE = 0.5  # between tries, on average
# The same for each of the job's workers, if rank 0's host refuses: its kernel answers 40 such tries a second at most.
_REFUSED_PAUSE = 0.025


class Attempt:
    """One attempt to connect to rank 0, prove the token and send the join request.

    Args:
        source: the own address to connect from; "": the kernel selects one.
        connect_seconds: timeout of the connection to each of the endpoint's addresses.
        done: gets the authenticated connection, or the error: an OSError if the connection failed or timed out, a
            ValueError if the listener is not of this job (another protocol or token).

    Raises:
        OSError: the endpoint's name has no address.
    """

    def __init__(
        self,
        loop: EventLoop,
        token: str,
        endpoint: Endpoint,
        request: JoinRequest | dict[str, Any],
        done: Callable[[socket.socket | OSError | ValueError], None],
        *,
        source: str = "",
        connect_seconds: float = _CONNECT_SECONDS,
    ) -> None:
        self._loop = loop
        self._token = token
        self._request = encode(request) if isinstance(request, JoinRequest) else request
        self._done = done
        self._source = source
        self._connect_seconds = connect_seconds
        self._addresses = deque(endpoint.resolve())
        self._socket: socket.socket | None = None
        self._received = self._proof = b""
        self._timer = loop.later(0, self._connect)

    def cancel(self) -> None:
        self._timer.cancel()
        if self._socket is not None:
            self._loop.watch(self._socket)
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        """Connect to the next address."""
        family, address = self._addresses.popleft()
        try:
            sock = self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:  # no descriptor is left
            self._not_connected(error)
            return
        sock.setblocking(False)
        control_cookies.add(sock_diag.cookie(sock))
        tune(sock)
        self._timer = self._loop.later(
            self._connect_seconds, lambda: self._not_connected(TimeoutError("timed out"))
        )
        try:
            if self._source:
                sock.bind((self._source, 0))
            sock.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            self._not_connected(error)
            return
        self._loop.watch(sock, write=self._connected)

    def _not_connected(self, error: OSError) -> None:
        if not self._addresses:
            self._end(error)
            return
        self.cancel()
        self._timer = self._loop.later(
            0, self._connect
        )  # a name may have addresses that are unreachable from here

    def _connected(self) -> None:
        assert self._socket is not None
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._not_connected(OSError(number, os.strerror(number)))
            return
        self._timer.cancel()
        self._timer = self._loop.later(ADMISSION_SECONDS, lambda: self._end(TimeoutError("timed out")))
        self._loop.watch(self._socket, self._read)

    def _read(self) -> None:
        """Read the challenge and answer it; then read the server's proof."""
        sock = self._socket
        assert sock is not None
        wanted = handshake.PROOF_BYTES if self._proof else handshake.CHALLENGE_BYTES
        try:
            data = sock.recv(wanted - len(self._received))
            if not data:
                raise ValueError(
                    "the listener closed the connection: its token is another job's, or it is not torchnet"
                )
            self._received += data
            if len(self._received) < wanted:
                return
            received, self._received = self._received, b""
            if not self._proof:
                signed, self._proof = handshake.answer_challenge(self._token, received, self._request)
                sock.sendall(pack(signed))  # it fits a new connection's buffer
            elif received == self._proof:
                self._end(sock)
            else:
                raise ValueError("the listener does not have the job's token")
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self._end(error)

    def _end(self, result: socket.socket | OSError | ValueError) -> None:
        if isinstance(result, socket.socket):
            self._timer.cancel()
            self._loop.watch(result)
            self._socket = None
        else:
            self.cancel()
        self._done(result)


class RendezvousClient:
    """Retries until ``start_timeout``. Looks up rank 0 each time, as it may start later or be replaced.

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
        self._timeouts = 0  # in a row
        self._failed_at: float | None = None  # the first try
        self._told = False
        self._attempt: Attempt | None = None
        self._timer = loop.later(0, self._try)

    def cancel(self) -> None:
        self._timer.cancel()
        if self._attempt is not None:
            self._attempt.cancel()

    def retry(self) -> None:
        """Retry after the connection ended before rank 0's first message."""
        self._phase_timer.waited()
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
            self._attempt = Attempt(
                self._loop,
                spec.token,
                endpoint,
                self._request,
                self._finish,
                source=source,
                connect_seconds=min(_CONNECT_SECONDS, 0.25 * self._tries),  # rank 0 may be replaced meanwhile
            )
        except (RefusedError, ClusterError) as error:
            self._failed(failures.own_error(spec.name, error))
        except NotYetError as error:
            self._try_later(error.error, error.seconds)
        except (OSError, NetworkError, IndexError) as error:
            self._try_later(error)

    def _finish(self, result: socket.socket | OSError | ValueError) -> None:
        self._attempt = None
        if isinstance(result, socket.socket):
            self._phase_timer.own()
            self._connected(result)
            return
        if isinstance(result, ConnectionRefusedError):
            result = ConnectionRefusedError(
                "connection refused: rank 0's agent has not started yet, or its job has started without this worker"
            )
        self._try_later(result)

    def _try_later(self, error: Exception, seconds: float = 0.0) -> None:
        self._phase_timer.own()
        spec, now, why = self._spec, self._loop.time(), str(error)
        where = f" at {self._frontend}" if self._frontend else ""
        self._timeouts = self._timeouts + 1 if isinstance(error, TimeoutError) else 0
        hint = self._hint() if self._timeouts >= _HINT_AFTER else ""
        why = "; ".join(filter(None, (why, hint)))
        if now > self._deadline:
            code = error.exit_code if isinstance(error, ClusterError) else 124
            self._failed(failures.join_timeout(spec.name, where, spec.start_timeout, why, code))
            return
        self._failed_at = now if self._failed_at is None else self._failed_at
        late = now > self._failed_at + _NOTICE_SECONDS and not self._told
        if late or (hint and self._timeouts == _HINT_AFTER):
            self._told = True
            reason = (
                "; ".join(filter(None, (error.text, error.fix))) if isinstance(error, TorchnetError) else why
            )
            self._notice(f"{spec.name} has not reached rank 0{where} yet and keeps trying: {reason}")
        refused = isinstance(error, ConnectionRefusedError)
        longest = min(_LONGEST_PAUSE, spec.nnodes * _REFUSED_PAUSE) if refused else _LONGEST_PAUSE
        pause = min(0.01 * 2 ** min(self._tries, 6), longest)
        self._timer = self._loop.later(seconds or pause * random.uniform(0.5, 1.5), self._try)

    def _hint(self) -> str:
        """Return what this worker's link suggests about a rank 0 on the backend that does not respond at all."""
        if self._frontend is not None:
            return ""
        try:
            kind, mode = rtnetlink.link_types()[self._rail.interface]
            rank0 = self._source.rank0()[0]
        except (OSError, LookupError, TorchnetError):
            return ""
        link = LinkType(kind, mode, self._rail.prefix)
        return path_diagnosis.hint(link, self._rail.interface, self._rail.address, rank0)

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
