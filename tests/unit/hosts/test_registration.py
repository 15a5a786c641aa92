"""A host that waits for rank 0."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from torchnet.agent.framed_socket import pack
from torchnet.agent.host_registration import HostRequest, Registration
from torchnet.agent.rendezvous import Endpoint
from torchnet.errors import JobStoppedError, NetworkError
from torchnet.hosts import registration
from torchnet.hosts.host_endpoint import HostEndpoint
from torchnet.hosts.registration import StartTimeoutError, register

REQUEST = HostRequest("uid", "host-b", 2, 1)
NOBODY = Endpoint("127.0.0.1", 1)


def wait(seconds: float, *signals: int) -> NoReturn:
    register(NOBODY, "token", REQUEST, seconds, lambda _text: None, signals)
    raise AssertionError("nobody answers")


def test_rank_0_does_not_come() -> None:
    with pytest.raises(
        StartTimeoutError, match="host-b could not reach node 0 at 127.0.0.1:1 within 0.2 s"
    ) as caught:
        wait(0.2)
    assert caught.value.exit_code == 124


@pytest.mark.quiet
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)]
)
def test_a_signal_ends_the_wait(number: signal.Signals, code: int) -> None:
    """Among them those of --signals-to-handle, which would kill a process that does not handle them."""
    before = signal.getsignal(number)

    def send() -> None:
        while signal.getsignal(number) is before:  # it would end the tests
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    try:
        with pytest.raises(JobStoppedError, match=f"stopped by {number.name} before the start") as caught:
            wait(30.0, *{signal.SIGTERM, signal.SIGUSR1, number})
        assert caught.value.exit_code == code
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 99, b""])
def test_another_program_on_the_endpoints_own_port_is_reported_soon(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may answer something else, or nothing at all."""
    monkeypatch.setattr(registration, "FOREIGN_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            ends.append(server.accept()[0])
            ends[0].sendall(answer)

        ends: list[socket.socket] = []
        thread = threading.Thread(target=serve)
        thread.start()
        taken = OSError(98, "Address already in use")
        began = time.monotonic()
        with pytest.raises(
            NetworkError, match=f"host-b cannot open port {port} .*: Address already in use"
        ) as caught:
            register(Endpoint("127.0.0.1", port), "token", REQUEST, 30.0, lambda _text: None, (), taken)
        assert time.monotonic() - began < 10
        assert f"ss -lntup 'sport = :{port}'" in caught.value.fix
        thread.join()
        ends[0].close()


@pytest.mark.quiet
def test_no_signal_waits_for_a_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_args: Any, **_named: Any) -> list[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # glibc goes on after a signal
        time.sleep(3)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return []

    def interrupted(looks_up: Callable[[], object]) -> None:
        # A shell starts what it runs in the background with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        looks_up()

    monkeypatch.setattr(socket, "getaddrinfo", dead)
    before = signal.getsignal(signal.SIGINT)
    for looks_up in (
        lambda: register(Endpoint("host-a", 1), "token", REQUEST, 30.0, lambda _text: None, (signal.SIGINT,)),
        lambda: HostEndpoint("host-a", 1).is_own(),
    ):
        began = time.monotonic()
        try:
            with pytest.raises((KeyboardInterrupt, JobStoppedError)):
                interrupted(looks_up)
        finally:
            signal.signal(signal.SIGINT, before)
        assert time.monotonic() - began < 2


def test_another_token_explains_more_than_that_its_job_has_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = Endpoint(*server.getsockname())

        def end() -> None:
            server.accept()[0].close()
            server.close()

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(StartTimeoutError, match="its token is another job's"):
            register(endpoint, "token", REQUEST, 2.0, lambda _text: None)
        thread.join()


def test_a_host_asks_again_if_a_node_rank_may_become_free(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Registration(refused="all are taken", later=True), Registration(1, "host-b", "job")]
    ends: list[socket.socket] = []

    def attempt(loop: Any, _token: str, _endpoint: Endpoint, _request: object, connected: Any) -> None:
        ours, theirs = socket.socketpair()
        theirs.sendall(pack(answers.pop(0).message()))
        ends.append(theirs)
        loop.later(0, lambda: connected(ours))

    monkeypatch.setattr(registration, "Attempt", attempt)
    # A node of this job has the port, though not for this process: nothing else is in use.
    taken = OSError(98, "Address already in use")
    monkeypatch.setattr(registration, "FOREIGN_SECONDS", 0.2)
    assert register(NOBODY, "token", REQUEST, 20.0, lambda _text: None, (), taken).node_rank == 1
    for one in ends:
        one.close()


def test_what_a_refused_host_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(pack(Registration(refused="host-b starts 1 process; fix: --nproc-per-node 2").message()))
    monkeypatch.setattr(registration, "Attempt", lambda loop, *rest: loop.later(0, lambda: rest[-1](ours)))
    with pytest.raises(
        NetworkError, match="^node 0 at 127.0.0.1:1 refuses this host: host-b starts 1 process"
    ) as caught:
        register(NOBODY, "token", REQUEST, 20.0, lambda _text: None)
    assert caught.value.fix == "--nproc-per-node 2"
    theirs.close()
