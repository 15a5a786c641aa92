"""Namespaces of a test's own: its body runs in a child process, and the kernel takes everything away with it.

Nothing here touches the machine's own interfaces, and no privilege is needed.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, ParamSpec

from tests import needs
from torchnet.linux import namespaces

_P = ParamSpec("_P")
_KINDS = (
    namespaces.NEWUSER
    | namespaces.NEWNET
    | namespaces.NEWNS
    | namespaces.NEWPID
    | namespaces.NEWUTS
    | namespaces.NEWIPC
)


def isolated(test: Callable[_P, None]) -> Callable[_P, None]:
    """Run the test as root of new user, network, mount, PID, UTS and IPC namespaces, where only lo is up."""

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        needs.networks()
        needs.program("ip")
        read, write = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _guarded(write, lambda: _enter(write, parent, lambda: test(*args, **kwargs)))
        os.close(write)
        try:
            with os.fdopen(read, errors="replace") as file:
                said = file.read()
        except BaseException:  # it takes too long
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        _, status = os.waitpid(pid, 0)
        if status or said:
            raise AssertionError(f"in its namespaces the test ended with {status}:\n{said}")

    return run


def _enter(write: int, parent: int, body: Callable[[], None]) -> None:
    signal.alarm(0)
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(_KINDS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    namespaces.die_with_parent(signal.SIGKILL, parent)
    child = os.fork()  # the first process of the PID namespace, whose end is the end of all others
    if child == 0:
        _guarded(write, lambda: _begin(body))
    os._exit(1 if os.waitpid(child, 0)[1] else 0)


def _begin(body: Callable[[], None]) -> None:
    namespaces.die_with_parent(signal.SIGKILL, 0)
    namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
    namespaces.mount(
        "proc", "/proc", "proc", namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC
    )
    ip("link set lo up")
    body()


def _guarded(write: int, action: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        action()
        code = 0
    except BaseException:
        os.write(write, traceback.format_exc().encode())
    finally:
        os._exit(code)


def ip(command: str, *, tool: str = "ip") -> str:
    """Run ``ip`` (or another tool) with these words in the present namespaces; its standard output."""
    done = subprocess.run([tool, *command.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{tool} {command}: {done.stderr}"
    return done.stdout


class Space:
    """One more network namespace; within ``with`` the process is in it, and sockets made there stay there."""

    def __init__(self) -> None:
        self._outside: list[int] = []
        outside = _here()
        namespaces.unshare(namespaces.NEWNET)
        self.descriptor = _here()
        ip("link set lo up")
        namespaces.setns(outside, namespaces.NEWNET)
        os.close(outside)

    @property
    def path(self) -> str:
        """As ``ip link set … netns PATH`` wants it."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def __enter__(self) -> Space:
        self._outside.append(_here())
        namespaces.setns(self.descriptor, namespaces.NEWNET)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        outside = self._outside.pop()
        namespaces.setns(outside, namespaces.NEWNET)
        os.close(outside)


def _here() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def cable(near: str, far: str, space: Space, *, addresses: tuple[tuple[str, str], ...] = ()) -> None:
    """A veth pair from here to ``space``, up on both sides, with pairs of (own, far) addresses such as 10.0.0.1/24."""
    ip(f"link add {near} type veth peer name {far} netns {space.path}")
    for own, other in addresses:
        # No duplicate address detection: it takes 2 s, and whoever made the cable gives the addresses out.
        ip(f"address add {own} dev {near}" + (" nodad" if ":" in own else ""))
        with space:
            ip(f"address add {other} dev {far}" + (" nodad" if ":" in other else ""))
    ip(f"link set {near} up")
    with space:
        ip(f"link set {far} up")
