"""The account of connections at its edges: dropped events, half-open connections, no privilege."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.local.test_linux_sock_diag import connection, receive, sides, until
from tests.namespaces import Space, cable, ip, isolated
from torchnet.linux import namespaces, sock_diag
from torchnet.linux.sock_diag import Destroyed


@isolated
def test_dropped_events_are_noticed_and_those_that_fit_still_come() -> None:
    destroyed = Destroyed()
    destroyed.netlink.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's least
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(200):
            with socket.create_connection(server.getsockname()[:2]):
                server.accept()[0].close()
    time.sleep(0.2)
    found, lost = len(list(destroyed.read())), destroyed.lost
    assert lost
    assert 0 < found < 400
    with connection(socket.AF_INET, "127.0.0.1"):
        pass
    assert until(destroyed, 1)  # and later ones again


@isolated
def test_half_open_names_those_that_do_not_hear_the_answer() -> None:
    far = Space()
    cable("net1", "net1", far, addresses=(("fd00::1/64", "fd00::2/64"),))
    cable("eth0", "eth0", far, addresses=(("fd77::1/64", "fd77::2/64"),))
    server = socket.create_server(("fd00::1", 7000), family=socket.AF_INET6)
    assert sock_diag.half_open(7000) == []
    # Its packets come by net1; our answers would go by eth0, where nobody has that address.
    ip("route add fd00::2/128 dev eth0")
    with far:
        client = socket.socket(socket.AF_INET6)
    client.setblocking(False)
    client.bind(("fd00::2", 0))
    with contextlib.suppress(BlockingIOError):
        client.connect(("fd00::1", 7000))
    deadline = time.monotonic() + 5
    while sock_diag.half_open(7000) != ["fd00::2"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sock_diag.half_open(7001) == []
    server.close()


@isolated
def test_no_privilege_is_needed() -> None:
    namespaces.drop_privileges()
    with pytest.raises(PermissionError):
        socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)  # the drop worked
    destroyed = Destroyed()
    with connection(socket.AF_INET, "127.0.0.1") as (client, accepted, port):
        client.sendall(b"x" * 77)
        receive(accepted, 77)
        assert sides(sock_diag.dump(), port)[0].sent_bytes == 77
    assert sides(until(destroyed, 2), port)[0].sent_bytes == 77
