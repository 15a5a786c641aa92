"""The join's door: who proves the token is handed on with what it said, everybody else is sent away."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rendezvous import connect_and_authenticate
from torchnet.agent import handshake, rendezvous_client
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.framed_socket import LENGTH, pack
from torchnet.agent.rendezvous import Endpoint, RendezvousServer, control_cookies, peer_host
from torchnet.linux import sock_diag

HELLO = {"row": "…", "run": "r", "nnodes": 2}


class Open:
    """A door on 127.0.0.1, served while a client in another thread does its part."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.welcomed: list[tuple[dict[str, Any], bytes]] = []
        self.door = RendezvousServer(self.loop, "the token", Endpoint("127.0.0.1", 0), self._welcome)
        self.port = self.door.socket.getsockname()[1]
        self._kept: list[socket.socket] = []

    def _welcome(self, sock: socket.socket, message: dict[str, Any], rest: bytes) -> None:
        self.welcomed.append((message, rest))
        self._kept.append(sock)

    def serve(self, client: Any) -> Any:
        """Run ``client()`` in a thread and the loop here until it is done; what it returned or raised."""
        found: list[Any] = []

        def act() -> None:
            try:
                found.append(client())
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=act)
        thread.start()
        watch = self.loop.every(0.005, lambda: None if thread.is_alive() else self.loop.stop())
        self.loop.run()
        watch.cancel()
        thread.join()
        return found[0]

    def close(self) -> None:
        for sock in self._kept:
            sock.close()
        self.door.close()
        self.loop.close()


@pytest.fixture
def opened() -> Iterator[Open]:
    door = Open()
    yield door
    door.close()


def knock(opened: Open, token: str = "the token") -> Any:
    return opened.serve(
        lambda: connect_and_authenticate(token, Endpoint("127.0.0.1", opened.port), HELLO, 5.0, "127.0.0.1")
    )


def test_a_worker_that_knows_the_token_is_handed_on(opened: Open) -> None:
    sock = knock(opened)
    assert isinstance(sock, socket.socket)
    assert opened.welcomed == [(HELLO, b"")]
    assert {sock_diag.cookie(sock), sock_diag.cookie(opened._kept[0])} <= control_cookies
    assert opened.door.wrong_tokens == 0
    sock.close()


def test_one_that_does_not_is_told_nothing_and_counted(opened: Open) -> None:
    error = knock(opened, "another")
    assert isinstance(error, ValueError)
    assert "token" in str(error)
    assert opened.welcomed == []
    assert opened.door.wrong_tokens == 1
    knock(opened).close()  # and nobody is harmed


def test_what_comes_right_behind_the_answer_is_handed_on_too(opened: Open) -> None:
    def client() -> bytes:
        with socket.create_connection(("127.0.0.1", opened.port)) as sock:
            signed, proof = handshake.answer_challenge(
                "the token", sock.recv(handshake.CHALLENGE_BYTES), HELLO
            )
            data = pack(signed)
            sock.sendall(data[:7])
            sock.sendall(data[7:] + b"the next frame")
            assert sock.recv(handshake.PROOF_BYTES) == proof
            return proof

    assert isinstance(opened.serve(client), bytes)
    assert opened.welcomed == [(HELLO, b"the next frame")]


NONSENSE = {
    "too long": (LENGTH.pack((16 << 10) + 1), 0),
    "much too long": (LENGTH.pack(1 << 31) + b"{", 0),
    "endless": (LENGTH.pack(16 << 10) + b"x" * (17 << 10), None),  # as the pieces come
    "no JSON": (LENGTH.pack(5) + b"hello", 1),
    "deep JSON": (LENGTH.pack(16 << 10) + b"[" * (16 << 10), 1),
    "a list": (pack([]), 1),  # type: ignore[arg-type]
    "no answer": (pack({"nonce": 5}), 1),
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", 0),
    "no UTF-8": (LENGTH.pack(4) + b"\xff\xfe\xfd\xfc", 1),
    "a lone surrogate": (pack({"nonce": "00" * 16, "message": "\ud800", "proof": "00" * 32}), 1),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_ends_the_connection_at_once(opened: Open, case: str) -> None:
    data, refused = NONSENSE[case]

    def client() -> bytes:
        with socket.create_connection(("127.0.0.1", opened.port), 3) as sock:
            sock.recv(handshake.CHALLENGE_BYTES, socket.MSG_WAITALL)
            try:
                sock.sendall(data)
                return sock.recv(100)
            except ConnectionError:
                return b""

    before = set(control_cookies)
    assert opened.serve(client) == b""
    assert opened.welcomed == []
    assert control_cookies == before  # what strangers send is no control traffic
    assert refused in (opened.door.wrong_tokens, None)
    knock(opened).close()


def test_a_silent_one_is_closed_with_the_door(opened: Open) -> None:
    quiet = socket.create_connection(("127.0.0.1", opened.port), 3)
    opened.serve(lambda: quiet.recv(handshake.CHALLENGE_BYTES))
    before = len(os.listdir("/proc/self/fd"))
    opened.door.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2
    assert quiet.recv(100) == b""
    quiet.close()
    opened.door = RendezvousServer(opened.loop, "the token", Endpoint("127.0.0.1", 0), opened._welcome)


def test_a_client_is_not_taken_in_by_another_service() -> None:
    for said in (b"SSH-2.0-OpenSSH_9.2\r\n" + b"x" * 40, b"", handshake.new_challenge() + b"y" * 32):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer(said: bytes = said, server: socket.socket = server) -> None:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(said)
                    with contextlib.suppress(ConnectionError):
                        connection.recv(1000 if said else 0)

            thread = threading.Thread(target=answer)
            thread.start()
            before = len(control_cookies)
            with pytest.raises((ValueError, OSError)):
                connect_and_authenticate(
                    "the token", Endpoint("127.0.0.1", server.getsockname()[1]), HELLO, 3.0
                )
            thread.join()
            assert len(control_cookies) == before + 1  # a try that failed is the agent's, too


def test_a_listener_that_sends_byte_by_byte_holds_a_client_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous_client, "ADMISSION_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(ConnectionError):
                for byte in handshake.new_challenge():
                    connection.sendall(bytes([byte]))
                    time.sleep(0.1)

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connect_and_authenticate("the token", Endpoint("127.0.0.1", server.getsockname()[1]), HELLO, 5.0)
        assert 0.5 <= time.monotonic() - began < 1.5
        thread.join()


def test_a_peer_is_named_by_its_own_address() -> None:
    """Rank 0 of a job on hosts listens on both families."""
    server = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = server.getsockname()[1]
    with server:
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, port)), server.accept()[0] as accepted:
                assert peer_host(accepted) == address
