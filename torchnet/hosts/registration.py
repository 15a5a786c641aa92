"""Ask rank 0 for this host's part of the job, until it answers."""

from __future__ import annotations

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
_NO_ANSWER = "no answer"
_LOOK_UP_SECONDS = 0.02  # between two looks whether a name is resolved


class StartTimeoutError(TorchnetError):
    """Rank 0 did not answer in time."""

    exit_code = 124


def register(
    endpoint: Endpoint,
    token: str,
    request: HostRequest,
    seconds: float,
    notice: Callable[[str], None],
    signals: Sequence[int] = (),
) -> Registration:
    """Return rank 0's answer.

    Args:
        seconds: How long to try; rank 0 may start later.
        notice: Gets a sentence if it takes long.
        signals: Those that end it.

    Raises:
        JobStoppedError: A signal has ended it.
        KeyboardInterrupt: SIGINT has.
        StartTimeoutError: Rank 0 did not answer.
        NetworkError: Rank 0 cannot take this host.
    """
    loop = EventLoop()
    try:
        answer = _Registering(loop, endpoint, token, request, seconds, notice)
        for number in signals:
            loop.on_signal(number, lambda number=number: answer.stop(number))  # type: ignore[misc]
        loop.run()
    finally:
        loop.close()
    if answer.stopped == signal.SIGINT:
        raise KeyboardInterrupt
    if answer.stopped:
        name = signal.Signals(answer.stopped).name
        raise JobStoppedError(f"stopped by {name} before the start", exit_code=128 + answer.stopped)
    if answer.found is None:
        text = f"{request.name} could not reach rank 0 at {endpoint} within {seconds:g} s: {answer.why}"
        raise StartTimeoutError(
            text,
            fix="check that node rank 0 runs on the host of the endpoint, and that firewalls admit its port",
        )
    if answer.found.refused:
        raise NetworkError(f"rank 0 at {endpoint} refuses this host: {answer.found.refused}")
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
    ) -> None:
        self.found: Registration | None = None
        self.why = _NO_ANSWER
        self.stopped = 0  # the number of the signal
        self._is_stranger = False  # whether what listened there had another token
        self._loop, self._endpoint, self._token, self._request = loop, endpoint, token, request
        self._attempt: Attempt | None = None
        self._frames: FramedSocket | None = None
        self._timer = loop.later(0, self._try)
        loop.later(seconds, loop.stop)
        loop.later(
            _NOTICE_SECONDS,
            lambda: notice(
                f"{request.name} has not reached rank 0 at {endpoint} yet and keeps trying: {self.why}"
            ),
        )

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
        else:
            self._frames = FramedSocket(
                self._loop, result, self._answered, lambda: self._again("rank 0 closed the connection")
            )
            self._timer = self._loop.later(_ANSWER_SECONDS, lambda: self._again("rank 0 did not answer"))

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
