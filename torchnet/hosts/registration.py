"""Ask node 0 for this host's part of the job, until it answers."""

from __future__ import annotations

import errno
import random
import signal
import socket
from collections.abc import Callable, Sequence

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.framed_socket import FramedSocket, Message
from torchnet.agent.host_registration import HostRequest, Registration
from torchnet.agent.rendezvous import Endpoint
from torchnet.agent.rendezvous_client import Attempt
from torchnet.errors import JobStoppedError, NetworkError, TorchnetError
from torchnet.hosts.host_endpoint import FoundEndpoint, LookUp

_NOTICE_SECONDS = 10.0
_PAUSE_SECONDS = 0.5
_ANSWER_SECONDS = 10.0
FOREIGN_SECONDS = 10.0  # another process of this host, even if it has just started, answers within
_NO_ANSWER = "no answer"
_LOOK_UP_SECONDS = 0.02  # between two looks whether a name is resolved


class StartTimeoutError(TorchnetError):
    """Node 0 did not answer in time."""

    exit_code = 124


def register(
    endpoint: Endpoint,
    token: str,
    request: HostRequest,
    seconds: float,
    notice: Callable[[str], None],
    signals: Sequence[int] = (),
    taken: OSError | None = None,
) -> Registration:
    """Return the answer of node 0.

    Args:
        seconds: How long to try; node 0 may start later.
        notice: Gets a sentence if it takes long.
        signals: Those that end it.
        taken: Why this host, which is the endpoint's, cannot open the port: another process of it may be node 0.

    Raises:
        JobStoppedError: A signal has ended it.
        StartTimeoutError: Node 0 did not answer.
        NetworkError: Node 0 cannot take this host; or another program has the port of the endpoint.
    """
    loop = EventLoop()
    try:
        answer = _Registering(loop, endpoint, token, request, seconds, notice, taken)
        for number in signals:
            loop.on_signal(number, lambda number=number: answer.stop(number))  # type: ignore[misc]
        loop.run()
        answer.close()
    finally:
        loop.close()
    if answer.stopped:
        name = signal.Signals(answer.stopped).name
        raise JobStoppedError(f"stopped by {name} before the start", exit_code=128 + answer.stopped)
    if answer.is_foreign and taken is not None:
        why = f": {answer.why}" if answer.why != _NO_ANSWER else ""
        in_use = taken.errno == errno.EADDRINUSE
        shows = (
            f"ss -lntup 'sport = :{endpoint.port}' shows which program has it; end it, or use another port"
        )
        raise NetworkError(
            f"{request.name} cannot open port {endpoint.port} for the rendezvous: {taken.strerror}, and no node of "
            f"this job answers there{why}",
            fix=f"{shows if in_use else 'use another port, such as 29400,'} on all hosts",
        )
    if answer.found is None:
        text = f"{request.name} could not reach node 0 at {endpoint} within {seconds:g} s: {answer.why}"
        raise StartTimeoutError(
            text,
            fix="check that node rank 0 runs on the host of the endpoint, and that firewalls admit its port",
        )
    if answer.found.refused:
        why, _, fix = answer.found.refused.partition("; fix: ")
        raise NetworkError(f"node 0 at {endpoint} refuses this host: {why}", fix=fix)
    return answer.found


class _Registering:
    def __init__(
        self,
        loop: EventLoop,
        endpoint: Endpoint,
        token: str,
        request: HostRequest,
        seconds: float,
        notice: Callable[[str], None],
        taken: OSError | None,
    ) -> None:
        self.found: Registration | None = None
        self.is_foreign = False  # whether another program has the port of this host
        self.why = _NO_ANSWER
        self.stopped = 0  # the number of the signal
        self._is_stranger = False  # whether what listened there had another token
        self._taken = taken is not None  # until a node of this job answers
        self._loop, self._endpoint, self._token, self._request = loop, endpoint, token, request
        self._attempt: Attempt | None = None
        self._frames: FramedSocket | None = None
        self._timer = loop.later(0, self._try)
        if taken is not None:
            loop.later(min(seconds, FOREIGN_SECONDS), self._end_if_foreign)
        loop.later(seconds, loop.stop)
        loop.later(
            _NOTICE_SECONDS,
            lambda: notice(
                f"{request.name} has not reached node 0 at {endpoint} yet and keeps trying: {self.why}"
            ),
        )

    def close(self) -> None:
        """Close the connection."""
        if self._attempt is not None:
            self._attempt.cancel()
        if self._frames is not None:
            self._frames.close()

    def stop(self, number: int) -> None:
        """End it because of a signal."""
        self.stopped = number
        self._loop.stop()

    def _try(self) -> None:
        self._ask(LookUp(self._endpoint))

    def _ask(self, name: LookUp) -> None:
        if not name.has_ended():
            if self.why == _NO_ANSWER:
                self.why = f"{self._endpoint.host} is being looked up"
            self._timer = self._loop.later(_LOOK_UP_SECONDS, lambda: self._ask(name))
            return
        try:
            endpoint = FoundEndpoint(self._endpoint.host, self._endpoint.port, tuple(name.result()))
        except OSError as error:  # it has no address yet
            self._again(str(error))
            return
        self._attempt = Attempt(self._loop, self._token, endpoint, self._request.message(), self._connected)

    def _connected(self, result: socket.socket | OSError | ValueError) -> None:
        self._attempt = None
        if isinstance(result, ConnectionRefusedError) and self._is_stranger:
            self._again(self.why)  # who had another token has gone, which explains less
        elif isinstance(result, ConnectionRefusedError):
            self._again(
                "connection refused: nothing listens there yet, or the job has started without this host"
            )
        elif not isinstance(result, socket.socket):
            self._is_stranger = isinstance(result, ValueError)
            self._again(str(result))
            if self._is_stranger:
                self._end_if_foreign()
        else:
            self._taken = False
            self._frames = FramedSocket(
                self._loop, result, self._answered, lambda: self._again("node 0 closed the connection")
            )
            self._timer = self._loop.later(_ANSWER_SECONDS, lambda: self._again("node 0 did not answer"))

    def _end_if_foreign(self) -> None:
        if self._taken:
            self.is_foreign = True
            self._loop.stop()

    def _answered(self, message: Message) -> None:
        try:
            found = Registration.read(message)
        except ValueError as error:
            self._again(str(error))
            return
        if found.later:
            self._again(found.refused)
            return
        self.found = found
        if self._frames is not None:
            self._frames.close()
        self._loop.stop()

    def _again(self, why: str) -> None:
        self.why = why
        self._timer.cancel()
        if self._frames is not None:
            self._frames.close()
            self._frames = None
        self._timer = self._loop.later(_PAUSE_SECONDS * random.uniform(0.5, 1.5), self._try)
