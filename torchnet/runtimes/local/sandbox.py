"""The namespaces that a local job lives in, and the two processes that hold them.

    torchnet ── supervisor ── init (pid 1 of the job) ── node 0 (pid 1 of its own), node 1, …

Everything is anonymous: when a process of this chain ends, however it ends, the kernel ends those right of it and takes
their namespaces, links and mounts away.  The supervisor exists because a process cannot enter a PID namespace itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from torchnet.errors import RefusedError, TorchnetError
from torchnet.kernel import syscalls
from torchnet.runtimes.local import idmap, refusal
from torchnet.runtimes.local.fabric import build_fabric
from torchnet.runtimes.local.nodes import start_node
from torchnet.runtimes.local.plan import Node

NodeMain = Callable[[int], int]


class Sandbox:
    """A running sandbox, seen from outside.  ``control`` tells, a JSON line each, how nodes end."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.init_pid = 0
        self._ended = False

    def kill(self) -> None:
        """End everything in it at once; returns when the kernel has taken it away."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> None:
        if not self._ended:
            os.waitpid(self.pid, 0)
            self._ended = True
            self.control.close()


def start(
    nodes: Sequence[Node],
    main: NodeMain,
    *,
    rate: int | None,
    mtu: int,
    internet: bool,
    keep: Sequence[int] = (),
    close: Sequence[int] = (),
) -> Sandbox:
    """Make the namespaces and networks and start ``main(rank)`` in each node, with standard streams as they are here.

    Args:
        main: runs in the node as pid 1, without capabilities; its result is the node's exit code.
        close: descriptors of this process that are no business of the sandbox.

    Raises:
        RefusedError: the kernel, or a policy around this process, refuses namespaces; names which and how to allow it.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _guarded(theirs, lambda: _supervise(theirs, parent, nodes, main, rate, mtu, internet, (ours.fileno(), *close)))
    theirs.close()
    sandbox = Sandbox(pid, ours)
    try:
        _handshake(sandbox)
    except BaseException:
        sandbox.kill()
        raise
    return sandbox


def _handshake(sandbox: Sandbox) -> None:
    lines = read_lines(sandbox.control)
    for message in lines:
        if "unshared" in message:
            try:
                idmap.write(sandbox.pid)
            except OSError as error:
                raise refusal.explain("uid_map", error) from error
            sandbox.control.sendall(b"mapped\n")
        elif "refused" in message:
            step, code, text = message["refused"]
            raise refusal.explain(step, OSError(code, text))
        elif "broken" in message:
            raise TorchnetError(f"the local networks could not be built: {message['broken']}")
        elif "ready" in message:
            sandbox.init_pid = message["ready"]
            return
    raise RefusedError("the sandbox ended while it was being made", fix="dmesg | tail")


def read_lines(control: socket.socket) -> Any:
    """The JSON lines that the sandbox writes, as they come."""
    with control.makefile("rb", buffering=0, closefd=False) if False else control.makefile("rb") as file:  # noqa: SIM210
        for line in file:
            yield json.loads(line)


def _supervise(
    control: socket.socket,
    parent: int,
    nodes: Sequence[Node],
    main: NodeMain,
    rate: int | None,
    mtu: int,
    internet: bool,
    close: Sequence[int],
) -> NoReturn:
    os.setsid()  # Ctrl-C and a closed terminal reach torchnet alone, which then stops the job in order
    for descriptor in close:
        os.close(descriptor)
    _step(control, "user namespace", lambda: syscalls.unshare(syscalls.NEWUSER))
    _tell(control, {"unshared": True})
    if control.recv(7) != b"mapped\n":
        os._exit(1)
    syscalls.die_with_parent(signal.SIGKILL, parent)
    kinds = syscalls.NEWPID | syscalls.NEWNS | syscalls.NEWNET | syscalls.NEWUTS | syscalls.NEWIPC
    _step(control, "namespaces", lambda: syscalls.unshare(kinds))
    supervisor = os.getpid()
    del supervisor
    child = os.fork()
    if child == 0:
        _guarded(control, lambda: _init(control, nodes, main, rate, mtu, internet))
    _tell(control, {"init": child})
    control.close()
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _init(
    control: socket.socket, nodes: Sequence[Node], main: NodeMain, rate: int | None, mtu: int, internet: bool
) -> NoReturn:
    syscalls.die_with_parent(signal.SIGKILL, 0)  # the parent is outside of this PID namespace, so its number is 0
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _step(control, "mounts", lambda: syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE))
    _step(control, "proc", mount_proc)
    fabric = build_fabric(nodes, rate=rate, mtu=mtu, internet=internet)
    running: dict[int, int] = {}
    for node, namespace in zip(nodes, fabric.namespaces, strict=True):
        running[start_node(node, namespace, lambda what: _step(control, what[0], what[1]), main)] = node.rank
    fabric.close()
    _tell(control, {"ready": os.getpid()})
    while running:
        pid, status = os.wait()
        if pid in running:
            _tell(control, {"node": running.pop(pid), "status": os.waitstatus_to_exitcode(status)})
    os._exit(0)


def mount_proc() -> None:
    """A /proc of the PID namespace that this process is in."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", flags)


def _step(control: socket.socket, name: str, action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        _tell(control, {"refused": [name, error.errno, error.strerror]})
        os._exit(1)


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(message).encode() + b"\n")


def _guarded(control: socket.socket, action: Callable[[], NoReturn]) -> NoReturn:
    """Run the child's part; it never returns into the code of the process that it was forked from."""
    try:
        action()
    except BaseException as error:  # told to the parent, which raises it there
        _tell(control, {"broken": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(70)
