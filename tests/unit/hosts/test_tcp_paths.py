"""Whether TCP reaches a peer's rail, where datagrams do not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from torchnet.agent.event_loop import EventLoop
from torchnet.hosts.tcp_paths import TcpPaths
from torchnet.network.interface_selection import Rail

KEY = b"key of this test"


def rail(address: str) -> Rail:
    return Rail(0, None, "lo", address, 4, 8, 65536)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop()
    yield made
    made.close()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.3.1", 0)) as probe:
        return int(probe.getsockname()[1])


def carried(loop: EventLoop, paths: TcpPaths, *addresses: str) -> set[str]:
    found: list[set[tuple[int, str]]] = []

    def done(result: set[tuple[int, str]]) -> None:
        found.append(result)
        loop.stop()

    paths.check([(0, address) for address in addresses], done)
    loop.run()
    return {address for _, address in found[0]}


def test_peers_with_the_jobs_key_answer(loop: EventLoop, port: int) -> None:
    ends = [TcpPaths(loop, KEY, (rail(f"127.0.3.{number}"),), port) for number in (1, 2, 3)]
    assert carried(loop, ends[0], "127.0.3.2", "127.0.3.3") == {"127.0.3.2", "127.0.3.3"}
    assert carried(loop, ends[2], "127.0.3.1", "127.0.3.9") == {"127.0.3.1"}  # nobody listens at the last
    for end in ends:
        end.close()
    with socket.create_server(("127.0.3.1", port)):
        pass


def test_another_job_does_not_answer(loop: EventLoop, port: int) -> None:
    ends = [TcpPaths(loop, key, (rail(f"127.0.3.{n}"),), port) for n, key in ((1, KEY), (2, b"another"))]
    assert carried(loop, ends[0], "127.0.3.2") == set()
    for end in ends:
        end.close()


def test_an_echo_is_no_answer(loop: EventLoop, port: int) -> None:
    """Nor is a filter's reset: something must prove the key."""

    def serve() -> None:
        sock, _ = server.accept()
        with sock:
            while data := sock.recv(1 << 16):
                sock.sendall(data)

    with socket.create_server(("127.0.3.2", port)) as server:
        threading.Thread(target=serve, daemon=True).start()
        paths = TcpPaths(loop, KEY, (rail("127.0.3.1"),), port)
        assert carried(loop, paths, "127.0.3.2") == set()
        paths.close()


def test_a_port_that_another_program_has_is_left_to_it(loop: EventLoop, port: int) -> None:
    with socket.create_server(("127.0.3.1", port)):
        paths = TcpPaths(loop, KEY, (rail("127.0.3.1"),), port)
        other = TcpPaths(loop, KEY, (rail("127.0.3.2"),), port)
        assert carried(loop, paths, "127.0.3.2") == {"127.0.3.2"}
        paths.close()
        other.close()
