"""The supervisor's wait, with real processes: children that end, and a launcher that does."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from torchnet.local.launcher_watch import LauncherWatch


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGCHLD)
    yield
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, handler)


def child(seconds: float, code: int = 0) -> int:
    program = f"import time, sys; time.sleep({seconds}); sys.exit({code})"
    return os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-I", "-S", "-c", program])


def test_children_that_end_are_reaped_with_their_codes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watch = LauncherWatch(theirs, os.getppid())
        first, second = child(0.0, 3), child(0.2)
        assert watch.wait([first, second]) == {first: 3, second: 0}


def test_the_end_of_the_launchers_socket_ends_the_wait() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        watch = LauncherWatch(theirs, os.getppid())
        pid = child(60)
        ours.close()
        assert watch.wait([pid]) is None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("pidfd", [True, False])
def test_the_end_of_the_launcher_is_noticed_although_a_copy_of_its_socket_is_open(
    monkeypatch: pytest.MonkeyPatch, pidfd: bool
) -> None:
    """The launcher is a process between this one and the supervisor, which also has a child."""
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        own = os.getpid()
        if os.fork() == 0:
            watch = LauncherWatch(theirs, own)
            os.write(write, b"x")
            pid = child(60)
            if watch.wait([pid]) is None:
                os.kill(pid, signal.SIGKILL)
                os.write(write, b"noticed")
            os._exit(0)
        time.sleep(60)
        os._exit(0)
    os.close(write)
    with ours, theirs, os.fdopen(read, "rb", buffering=0) as pipe:
        assert pipe.read(1) == b"x"
        os.kill(launcher, signal.SIGKILL)
        os.waitpid(launcher, 0)
        assert pipe.read(7) == b"noticed"
