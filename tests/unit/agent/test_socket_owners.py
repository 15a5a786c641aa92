"""Whose a connection is: a descendant's, another process's, or unknown because no descriptor shows it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from torchnet.agent import socket_owners
from torchnet.agent.socket_owners import SocketOwners
from torchnet.linux import namespaces, sock_diag
from torchnet.linux.sock_diag import SocketBytes


@pytest.fixture
def connections() -> Iterator[list[tuple[socket.socket, SocketBytes]]]:
    """Three connections of this process, and what the kernel says of them."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        opened = [stack.enter_context(socket.create_connection(server.getsockname())) for _ in range(3)]
        for _ in opened:
            stack.enter_context(server.accept()[0])
        cookies = [sock_diag.cookie(one) for one in opened]
        known = {one.cookie: one for one in sock_diag.dump()}
        yield [(one, known[cookie]) for one, cookie in zip(opened, cookies, strict=True)]


@contextlib.contextmanager
def holder(*held: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", "input()"]
    files = [one.fileno() for one in held]
    with subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=files) as process:
        yield process
        process.communicate(b"\n")


def test_a_descendants_sockets_are_the_jobs(connections: list[tuple[socket.socket, SocketBytes]]) -> None:
    owners = SocketOwners((), ())
    (mine, seen), (_, other), _ = connections
    with holder(mine) as process:
        owners.look([seen, other], [])
        assert owners.owner(seen)[0] == "job"
        assert owners.owner(seen)[1].pid == process.pid
    assert owners.owner(other)[0] == "unknown"  # held by this process, not by a descendant


def test_only_what_another_process_or_user_has_is_anothers(
    connections: list[tuple[socket.socket, SocketBytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket in no descriptor can be the job's: it may be in io_uring's table, or on its way to another process."""
    (held, seen), (hidden, in_flight), (_, foreign) = connections
    foreign = replace(foreign, uid=12345)
    ends = socket.socketpair()
    socket.send_fds(ends[0], [b"x"], [hidden.fileno()])
    hidden.close()
    monkeypatch.setattr(socket_owners, "descendants", list)  # so that the holder is somebody else
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    seen, in_flight = replace(seen, uid=1000), replace(in_flight, uid=1000)
    owners = SocketOwners((), ())
    with holder(held):
        for _ in range(2):
            owners.look([seen, in_flight, foreign], [])
            assert {owners.owner(one)[0] for one in (seen, in_flight, foreign)} == {"unknown"}
        owners.look([seen, in_flight, foreign], [])
    assert [owners.owner(one)[0] for one in (seen, in_flight, foreign)] == ["other", "unknown", "other"]
    assert owners.search_seconds > 0
    owners.look([in_flight], [])  # not again at once
    assert owners.search_seconds == 0
    owners.look([in_flight], [], last=True)
    assert owners.search_seconds > 0
    for end in ends:
        end.close()


def test_a_user_whose_processes_cannot_be_read_owns_nothing_for_certain(
    connections: list[tuple[socket.socket, SocketBytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command may have started a program with another user's rights."""
    _, _, (_, foreign) = connections
    foreign = replace(foreign, uid=12345)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(socket_owners, "open_sockets", lambda: socket_owners.OpenSockets({}, (7,), ()))
    owners = SocketOwners((), ())
    for _ in range(4):
        owners.look([foreign], [], last=True)
    assert owners.owner(foreign)[0] == "unknown"


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
def test_threads_are_not_read_one_by_one_without_kcmp(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_one: int, _other: int) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(namespaces, "same_files", denied)
    read: list[str] = []
    listed = os.listdir

    def listdir(path: str) -> list[str]:
        read.append(path)
        return listed(path)

    monkeypatch.setattr(os, "listdir", listdir)
    script = "import threading; [threading.Thread(target=input).start() for _ in range(5)]; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        socket_owners.open_sockets()
        process.communicate(b"\n" * 6)
    assert [
        path for path in read if path.startswith(f"/proc/{process.pid}/task/") and path.endswith("/fd")
    ] == [f"/proc/{process.pid}/task/{process.pid}/fd"]
