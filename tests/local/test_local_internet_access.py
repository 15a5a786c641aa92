"""The way out of the nodes, to a server in the test's own namespace; and the words where there is none."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import lines, run, script
from tests.namespaces import ip, isolated
from torchnet.linux import namespaces, tap

SCRIPT = """
    import errno, os, socket
    def ask(address, port):
        try:
            with socket.create_connection((address, port), 5) as connection:
                return connection.recv(100).decode()
        except OSError as error:
            return type(error).__name__ + " " + errno.errorcode.get(error.errno, "?")
    print(open("/etc/resolv.conf").read().strip())
    print(ask("10.99.0.1", 8088))
    print(ask("named.test", 8088))
    print(ask("172.30.0.2", 8089))
    print(open("/etc/hosts").read().count("node-"))
"""


def serve(address: str, port: int, text: bytes) -> None:
    server = socket.create_server((address, port))

    def loop() -> None:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(text)

    threading.Thread(target=loop, daemon=True).start()


def name_server(address: str, answer: str) -> None:
    """Answers each question for an IPv4 address with the same one, and says that there is nothing else."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 53))

    def loop() -> None:
        while True:
            query, client = sock.recvfrom(1000)
            end = query.index(b"\0", 12) + 5
            wanted = query[end - 4 : end - 2] == b"\0\1"
            head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, int(wanted), 0, 0)
            record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(answer)
            sock.sendto(head + query[12:end] + (record if wanted else b""), client)

    threading.Thread(target=loop, daemon=True).start()


def outside(resolver: Path) -> None:
    """A network of the machine's, with a server on it, one on the machine's loopback, and a name server."""
    ip("link add out0 type veth peer name out1")
    ip("address add 10.99.0.1/24 dev out0")
    ip("link set out0 up")
    ip("link set out1 up")
    serve("10.99.0.1", 8088, b"welcome outside")
    serve("127.0.0.1", 8089, b"the machine's own")
    name_server("10.99.0.1", "10.99.0.1")
    resolver.write_text("nameserver 10.99.0.1\n")
    namespaces.mount(str(resolver), os.path.realpath("/etc/resolv.conf"), flags=namespaces.MS_BIND)


def test_scripts_reach_what_the_machine_reaches_but_its_loopback(tmp_path: Path) -> None:
    needs.program("slirp4netns")
    if not tap.usable():
        pytest.skip(f"{tap.DEVICE} is closed to this user")
    _reaches(script(tmp_path, SCRIPT), tmp_path / "resolv.conf")


@isolated
def _reaches(path: Path, resolver: Path) -> None:
    outside(resolver)
    ended = run("--nnodes", "3", path)
    assert ended.code == 0, ended.stderr
    for rank in range(3):
        server, by_address, by_name, own, hosts = lines(ended.stdout, rank)
        assert server == "nameserver 172.30.0.3"
        assert (by_address, by_name) == ("welcome outside", "welcome outside")
        assert own.split()[0] in ("ConnectionRefusedError", "TimeoutError", "OSError"), own
        assert int(hosts) > 3
    assert "no internet access" not in ended.stderr


def test_without_a_way_out_it_is_said_at_the_start(tmp_path: Path) -> None:
    _closed(script(tmp_path, SCRIPT), tmp_path / "resolv.conf")


@isolated
def _closed(path: Path, resolver: Path) -> None:
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    outside(resolver)
    os.environ["PATH"] = os.path.dirname(sys.executable)
    ended = run(path)
    assert ended.code == 0, ended.stderr
    assert "slirp4netns is not installed" in ended.stderr
    for rank in range(2):
        server, by_address, *_ = lines(ended.stdout, rank)
        assert server == "nameserver 10.99.0.1"
        assert by_address == "OSError ENETUNREACH"
