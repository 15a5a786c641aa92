"""Bytes per TCP connection, against bytes that were really sent."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.namespaces import Space, cable, ip, isolated
from torchnet.linux import sock_diag
from torchnet.linux.sock_diag import Destroyed, SocketBytes

# Family and address of the server as clients call it, and what the account should call it.
KINDS = {
    "ipv4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "ipv6": (socket.AF_INET6, "::1", "::1"),
    "mapped": (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
}


@contextlib.contextmanager
def connection(family: int, address: str) -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """(client, accepted, port of the server)"""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind((address, 0))
        server.listen(8)
        port = server.getsockname()[1]
        with socket.create_connection((address, port), 5) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(20)
                yield client, accepted, port


def receive(sock: socket.socket, count: int) -> None:
    while count:
        data = sock.recv(min(count, 1 << 16))
        assert data
        count -= len(data)


def until(destroyed: Destroyed, count: int) -> list[SocketBytes]:
    found: list[SocketBytes] = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count}"
        found += destroyed.read()
        time.sleep(0.01)
    return found


def sides(found: list[SocketBytes], port: int) -> tuple[SocketBytes, SocketBytes]:
    """(the client's, the server's)"""
    (client,) = (s for s in found if s.remote_port == port)
    (server,) = (s for s in found if s.local_port == port)
    return client, server


@pytest.mark.parametrize("kind", KINDS)
def test_an_open_and_a_closed_connection_are_accounted_to_the_byte(kind: str) -> None:
    _accounted(kind)


@isolated
def _accounted(kind: str) -> None:
    family, address, shown = KINDS[kind]
    destroyed = Destroyed()
    with connection(family, address) as (client, accepted, port):
        idle = sides(sock_diag.dump(), port)
        assert [(s.sent_bytes, s.received_bytes) for s in idle] == [(0, 0), (0, 0)]
        client.sendall(bytes(123_457))
        receive(accepted, 123_457)
        accepted.sendall(bytes(1001))
        receive(client, 1001)
        opened = sides(sock_diag.dump(), port)
        assert [s.inode for s in opened] == [os.fstat(sock.fileno()).st_ino for sock in (client, accepted)]
        assert not list(destroyed.read())
        accepted.sendall(b"and one more")
        receive(client, 12)
    closed = sides(until(destroyed, 2), port)
    for near, far in (opened, closed):
        assert (near.local, near.remote, far.local, far.remote) == (shown,) * 4
        assert near.local_port == far.remote_port
        assert (near.segments_out, near.segments_in) != (0, 0)
    assert [(s.sent_bytes, s.received_bytes) for s in opened] == [(123_457, 1001), (1001, 123_457)]
    assert [s.sent_bytes for s in closed] == [123_457, 1013]
    # The other end's FIN is a byte to the kernel.
    assert [s.received_bytes for s in closed] in ([1013 + a, 123_457 + b] for a in (0, 1) for b in (0, 1))
    assert [s.cookie for s in opened] == [s.cookie for s in closed]
    assert len({s.cookie for s in opened}) == 2
    assert sock_diag.dump() == []


@isolated
def test_a_side_that_has_closed_and_only_waits_is_accounted_once() -> None:
    """The kernel lists what is left of it (FIN_WAIT2) with its cookie, but without any figures."""
    destroyed = Destroyed()
    with connection(socket.AF_INET, "127.0.0.1") as (client, accepted, port):
        client.sendall(bytes(5000))
        receive(accepted, 5000)
        client.close()
        (gone,) = until(destroyed, 1)
        assert (gone.remote_port, gone.sent_bytes) == (port, 5000)
        assert ip("-tnH state fin-wait-2", tool="ss")
        (left,) = sock_diag.dump()
        assert (left.local_port, left.received_bytes) == (port, 5001)


@isolated
def test_of_the_sockets_that_close_without_counts_only_connections_are_told() -> None:
    ip("link set lo up")
    destroyed = Destroyed()
    reset = []
    for number in (0, 1):  # the client, the accepted socket
        with connection(*KINDS["ipv6"][:2]) as (*ends, port):
            reset.append(sock_diag.cookie(ends[number]))
            ends[number].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ends[number].close()
    with socket.socket() as refused, contextlib.suppress(ConnectionRefusedError):
        refused.connect(("127.0.0.1", port))
    socket.socket().close()
    until(destroyed, 2)  # the other ends
    assert sorted(destroyed.closed_without_counts) == sorted(reset)
    destroyed.close()


@isolated
def test_many_connections_that_close_quickly_are_all_seen() -> None:
    destroyed = Destroyed()
    sent: Counter[int] = Counter()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        for number in range(1, 1001):
            with socket.create_connection(("::1", port)) as client:
                client.sendall(bytes(number))
                sent[client.getsockname()[1]] += number
            accepted, _ = server.accept()
            with accepted:
                receive(accepted, number)
    found = until(destroyed, 2000)
    assert not destroyed.lost
    clients: Counter[int] = Counter()
    servers: Counter[int] = Counter()
    for one in found:
        if one.local_port == port:
            servers[one.remote_port] += one.received_bytes
        else:
            clients[one.local_port] += one.sent_bytes
    assert clients == sent
    assert sum(sent.values()) == 500_500
    assert {servers[one] - sent[one] for one in sent} <= {0, 1}  # with the FIN


@isolated
def test_what_is_sent_again_counts_once_and_is_told_as_unacknowledged() -> None:
    far = Space()
    cable("net1", "net1", far, addresses=(("fd00::1/64", "fd00::2/64"),))
    with far:
        server = socket.create_server(("fd00::2", 7000), family=socket.AF_INET6)
    client = socket.create_connection(("fd00::2", 7000))
    accepted, _ = server.accept()
    accepted.settimeout(20)
    for _ in range(
        50
    ):  # the first packet of a new cable can take a second, and the kernel would retry slowly
        client.sendall(b"x")
        receive(accepted, 1)
        accepted.sendall(b"x")
        receive(client, 1)
    # A receiver whose answers get lost: the kernel here sends again and again, and all of it arrives.
    with far:
        ip("route add unreachable fd00::1/128 metric 1")
    (near,) = clients()
    assert (near.unacknowledged, near.backoff) == (0, 0)
    client.sendall(bytes(14_950))
    deadline = time.monotonic() + 20
    while near.backoff < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        (near,) = clients()
    assert near.unacknowledged >= 1
    with far:
        ip("route del unreachable fd00::1/128 metric 1")
    receive(accepted, 14_950)
    while near.unacknowledged:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        (near,) = clients()
    assert near.backoff == 0
    again = int(ip("-tinOH", tool="ss").partition("bytes_retrans:")[2].split()[0])
    assert again > 0
    assert near.sent_bytes == 15_000
    with far:
        (other,) = (s for s in sock_diag.dump() if s.local_port == 7000)
    assert other.received_bytes == 15_000


def clients() -> list[SocketBytes]:
    return [s for s in sock_diag.dump() if s.remote_port == 7000]
