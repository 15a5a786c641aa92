"""The rendezvous at rank 0's agent: its server and its client.

The server accepts workers that prove the job's token (torchnet.agent.handshake). A client that is silent, sends garbage
or has a wrong token costs the server one descriptor for a few seconds; if there are many, the oldest is dropped first.
A worker retries until the server accepts it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchnet import constants
from torchnet.agent import handshake
from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.agent.events import Failure
from torchnet.agent.framed_socket import LENGTH, pack
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.preflight import wrong_route
from torchnet.agent.spec import AgentSpec
from torchnet.errors import ClusterError, NetworkError, NotYetError, RefusedError, TorchnetError
from torchnet.linux import rtnetlink, sock_diag
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRow, PeerTable, decode, encode

STRANGERS = 256  # limit of unauthenticated connections
_PATIENCE_SECONDS = 10.0
_ANSWER_LIMIT = 16 << 10
_SOL_TCP_THIN_LINEAR_TIMEOUTS = 16

# Cookies of this process's connections with other agents, including ended ones. As a script may use any port, the
# account cannot identify control traffic otherwise. The server adds a connection only once it is authenticated.
control_cookies: set[int] = set()

Welcome = Callable[[socket.socket, dict[str, Any], bytes], None]


class RendezvousServer:
    """Listens on ``address`` and passes on each connection that has proved the token, with its first message."""

    def __init__(self, loop: EventLoop, token: str, address: str, port: int, welcome: Welcome) -> None:
        self._loop = loop
        self._token = token
        self._welcome = welcome
        self._strangers: dict[socket.socket, tuple[bytes, bytearray, Timer]] = {}
        self.refused = 0  # wrong tokens, for the diagnosis
        self.socket = socket.socket(rtnetlink.family_of(address), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, port))
        self.socket.listen(4096)
        self.socket.setblocking(False)
        loop.watch(self.socket, self._accept)

    def close(self) -> None:
        """Stop listening, and close unauthenticated connections."""
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
            except OSError:  # out of descriptors: drop the oldest
                if not self._strangers:
                    return
                self._away(next(iter(self._strangers)))
                continue
            if len(self._strangers) >= STRANGERS:
                self._away(next(iter(self._strangers)))
            tune(sock)
            sock.setblocking(False)
            challenge = handshake.new_challenge()
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
                message, proof = handshake.check_answer(self._token, challenge, _object(signed))
            except (ValueError, RecursionError):
                self.refused += 1
                self._away(sock)
                return
            control_cookies.add(sock_diag.cookie(sock))
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
    """Connect from the address ``own`` to rank 0, prove the token and send the join request.

    Returns:
        The connection, with the timeout ``seconds``.

    Raises:
        OSError: the connection failed or timed out.
        ValueError: the listener is not of this job (another protocol or token).
    """
    sock = socket.socket(rtnetlink.family_of(rank0), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        control_cookies.add(sock_diag.cookie(sock))
        tune(sock)
        sock.settimeout(seconds)
        sock.bind((own, 0))
        sock.connect((rank0, port))
        signed, proof = handshake.answer_challenge(token, _exactly(sock, handshake.CHALLENGE_BYTES), message)
        sock.sendall(pack(signed))
        if _exactly(sock, handshake.PROOF_BYTES) != proof:
            raise ValueError("it does not know the token either")
        return sock
    except BaseException:
        sock.close()
        raise


def tune(sock: socket.socket) -> None:
    """Make a connection send small messages at once, and retransmit frequently while a link flaps."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _SOL_TCP_THIN_LINEAR_TIMEOUTS, 1)


def pack_row(row: PeerRow) -> str:
    """Encode one worker's row as text, in the table's encoding."""
    return base64.b64encode(encode(PeerTable((row,)))).decode()


def unpack_row(text: str) -> PeerRow:
    """The inverse of :func:`pack_row`.

    Raises:
        ValueError, NetworkError: it is not a valid row.
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


@dataclass(frozen=True)
class JoinRequest:
    """``phase`` is the worker's, ``start`` the job's start attempt, ``known`` the verified table's fingerprint."""

    row: PeerRow
    run: str
    nnodes: int
    phase: str = "all"
    start: str = ""
    known: str = ""

    @classmethod
    def of(cls, spec: AgentSpec, row: PeerRow, known: str = "") -> JoinRequest:
        return cls(row, spec.run_id, spec.nnodes, spec.phase, spec.start, known)

    def message(self) -> dict[str, Any]:
        return {**vars(self), "row": pack_row(self.row)}

    @classmethod
    def read(cls, message: dict[str, Any]) -> JoinRequest:
        """Parse a join request.

        Raises:
            KeyError, TypeError, ValueError, OverflowError, NetworkError: it is malformed.
        """
        texts = {name: str(message.get(name, "")) for name in ("start", "known")}
        phase = str(message.get("phase", "all"))
        return cls(unpack_row(message["row"]), str(message["run"]), int(message["nnodes"]), phase, **texts)

    def objection(self, spec: AgentSpec, present: PeerRow | None, *, late: bool) -> str:
        """Return why this worker is rejected although it has the token, or "".

        ``present`` is the worker that already has the rank; the same worker may join again.
        """
        rank = self.row.node_rank
        if self.run != spec.run_id:
            return f"it belongs to run {self.run}, this is run {spec.run_id}"
        if self.nnodes != spec.nnodes:
            return f"it was started with --nnodes {self.nnodes}, this job has {spec.nnodes}"
        if self.start != spec.start:
            return f"it belongs to start attempt {self.start or '?'}, this is {spec.start or '?'}"
        if (self.phase == "all") != (spec.phase == "all"):
            return f"it was started with --phase {self.phase}, rank 0 with --phase {spec.phase}"
        if not 0 <= rank < spec.nnodes:
            return f"its node rank {rank} is not below the {spec.nnodes} nodes of this job"
        if late:
            return "the job has started without it"
        if present is not None and present.uid != self.row.uid:
            return f"node rank {rank} is taken by {present.name} ({present.rails[0].address})"
        return ""


_SAID_AFTER = 10  # tries, about 10 s
# After the preparation, rank 0's pod is gone if its address does not even refuse connections for this long: until its
# agent starts, the kernel refuses them.
GONE_SECONDS = 30.0


class RendezvousClient:
    """Retries until ``start_timeout``. Looks up rank 0 each time, as it may start later or be replaced.

    Ends with a call of ``entered(connection)`` or ``failed(failure)``; ``notice`` gets a sentence if it takes long.
    In phase work a replacement cannot be looked up, so the client fails if rank 0's address is gone.
    """

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        source: AddressSource,
        rail: Rail,
        hello: JoinRequest,
        entered: Callable[[socket.socket], None],
        failed: Callable[[Failure], None],
        notice: Callable[[str], None],
        clock: PhaseTimer,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._source = source
        self._rail = rail
        self._hello = hello.message()
        self._clock = clock
        self._entered = entered
        self._failed = failed
        self._notice = notice
        self._deadline = time.monotonic() + spec.start_timeout
        self._tries = 0
        self._there = time.monotonic()  # when rank 0's address last responded, if only by a refusal
        self._timer = loop.later(0, self._try)

    def cancel(self) -> None:
        self._timer.cancel()

    def cut(self) -> None:
        """Retry after the connection ended before rank 0's first message."""
        self._clock.waited()
        self._there = time.monotonic()
        self._again(ConnectionError("rank 0 ended the connection without a word"))

    def _try(self) -> None:
        self._tries += 1
        self._clock.waited()
        try:
            rank0 = self._source.rank0()[0]
            self._reachable(rank0)
            patience = min(2.0, 0.25 * self._tries)  # it blocks the event loop
            connection = enter(
                self._spec.token, self._rail.address, rank0, constants.JOIN_PORT, self._hello, patience
            )
        except (RefusedError, ClusterError) as error:
            self._fail("network", str(error), error.exit_code)
        except NotYetError as error:
            self._again(error.error, error.seconds)
        except (ConnectionError, ValueError) as error:
            self._there = time.monotonic()
            self._again(error)
        except (OSError, NetworkError, IndexError) as error:
            self._again(error)
        else:
            self._clock.own()
            self._entered(connection)

    def _again(self, error: Exception, seconds: float = 0.0) -> None:
        self._clock.own()
        now, why = time.monotonic(), str(error)
        if self._spec.phase == "work" and now - self._there > GONE_SECONDS:
            text = (
                f"lost rank 0: nothing at the address that it had in the preparation answers {self._spec.name} for "
                f"{GONE_SECONDS:g} s ({why}): its pod was replaced, or its node is gone"
            )
            self._fail("lost", text, 70)
            return
        if now > self._deadline:
            limit = f"{self._spec.start_timeout:g} s"
            code = error.exit_code if isinstance(error, ClusterError) else 124
            self._fail("timeout", f"{self._spec.name} could not join rank 0 within {limit}: {why}", code)
            return
        if self._tries == _SAID_AFTER:
            said = error.text if isinstance(error, TorchnetError) else why
            self._notice(f"{self._spec.name} has not reached rank 0 yet: {said}; trying on")
        self._timer = self._loop.later(seconds or min(0.01 * 2 ** min(self._tries, 6), 0.5), self._try)

    def _reachable(self, rank0: str) -> None:
        """Fail at once if a retry cannot help."""
        own, rail = self._spec.name, self._rail
        if self._spec.loopback:
            return
        if rank0 == rail.address:
            raise RefusedError(
                f"address {rank0} belongs to rank 0 and to {own} ({rail.interface})",
                fix="recreate one of them; an ipam with one pool for all nodes keeps addresses apart",
            )
        if (":" in rank0) != (rail.family == 6):
            raise RefusedError(
                f"{own} has IPv{rail.family} {rail.address} on {rail.interface}, rank 0 has {rank0}: the families "
                "are mixed",
                fix="give all workers addresses of one family, or choose one with --family",
            )
        problem = wrong_route(own, "rank 0", rail, rank0)
        if problem:
            raise RefusedError(problem)

    def _fail(self, kind: str, text: str, code: int) -> None:
        self._failed(Failure(kind, text, code, node=self._spec.name, at=time.time()))  # type: ignore[arg-type]
