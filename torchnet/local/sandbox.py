"""The namespaces of a local job, and the two processes that hold them.

torchnet ── supervisor ── init (pid 1 of the job) ── node 0 (pid 1 of its own), node 1, …

Everything is anonymous: when a process of this chain ends, the kernel ends those right of it and removes their
namespaces, links and mounts. The supervisor exists because a process cannot enter a PID namespace itself. User and
group ids are mapped as user_namespaces(7) describes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from torchnet.config.fault_syntax import Fault
from torchnet.errors import RefusedError, TorchnetError
from torchnet.linux import namespaces
from torchnet.local import namespace_errors
from torchnet.local.fabric import build_fabric
from torchnet.local.faults import PlantedFault, carry_out
from torchnet.local.node import start_node
from torchnet.local.topology import NodePlan


def write(pid: int) -> None:
    """Give the new user namespace of process ``pid`` its numbers.

    Root maps every number that exists here onto itself, so that files keep their owners.  Anybody else may map one
    number only, the own: files of others then show as nobody's, and the own stay the own.

    Raises:
        OSError: the kernel refused, e.g. because a policy took this process's capabilities.
    """
    if os.geteuid() == 0:
        try:
            _write(pid, "uid_map", _whole("uid_map"))
            _write(pid, "gid_map", _whole("gid_map"))
            return
        except PermissionError:
            pass  # without CAP_SETUID root is like anybody else; its own number needs CAP_SETFCAP then
    _write(pid, "setgroups", "deny")
    _write(pid, "uid_map", f"{os.geteuid()} {os.geteuid()} 1")
    _write(pid, "gid_map", f"{os.getegid()} {os.getegid()} 1")


def _whole(name: str) -> str:
    with open(f"/proc/self/{name}") as file:
        lines = [line.split() for line in file]
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in lines)


def _write(pid: int, name: str, text: str) -> None:
    # One write: the kernel takes the map in a single call.
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


_FAULT_SECONDS = 0.02  # how exactly timed faults come
NodeMain = Callable[[int], int]


@dataclass(frozen=True)
class SandboxShape:
    """What the networks are to be like: bits per second of a backend link in each direction (None: as fast as it
    goes), the backend's MTU in bytes, whether nodes have a way out, and planted faults."""

    rate: int | None = None
    mtu: int = 9000
    internet: bool = False
    faults: tuple[Fault, ...] = ()


class Sandbox:
    """A running sandbox, seen from outside.  ``control`` tells, a JSON line each, how nodes end."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.init_pid = 0
        self._unread = b""
        self._ended = False

    def messages(self, *, wait: bool = True) -> Iterator[dict[str, Any]]:
        """What the sandbox says, as it comes; without ``wait`` only what has come.

        Raises:
            TorchnetError: it says that it could not be made as it was to be.
        """
        while True:
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                message = json.loads(line)
                if "refused" in message:
                    step, code, text = message["refused"]
                    raise namespace_errors.explain(step, OSError(code, text))
                if "broken" in message:
                    raise TorchnetError(f"the local networks could not be built: {message['broken']}")
                yield message
            try:
                data = self.control.recv(64 << 10, 0 if wait else socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                return
            if not data:
                return
            self._unread += data

    def kill(self) -> None:
        """End everything in it at once; returns when the kernel has taken it away."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def complaint(self) -> TorchnetError | None:
        """What a node that could not be set up said of it, or why there is no sandbox any more; None: nothing."""
        try:
            for _ in self.messages(wait=False):
                pass
        except TorchnetError as error:
            return error
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended = True
                return _ended_by(os.waitstatus_to_exitcode(status))
        return None

    def wait(self) -> None:
        if not self._ended:
            os.waitpid(self.pid, 0)
            self._ended = True
            self.control.close()


def start(
    nodes: Sequence[NodePlan], main: NodeMain, shape: SandboxShape, *, node_files: Sequence[int] = ()
) -> Sandbox:
    """Make the namespaces and networks and start ``main(rank)`` in each node, with standard streams as they are here.

    Args:
        main: runs in the node as pid 1, without capabilities; its result is the node's exit code.
        node_files: descriptors for the nodes alone, which the processes above them close: who holds the other end
            of a node's socket is to notice the node's end.

    Raises:
        RefusedError: the kernel, or a policy around this process, refuses namespaces; names which and how to allow it.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _guarded(theirs, lambda: _supervise(theirs, parent, nodes, main, shape, node_files))
    theirs.close()
    sandbox = Sandbox(pid, ours)
    try:
        _handshake(sandbox)
    except BaseException:
        sandbox.kill()
        raise
    return sandbox


def _handshake(sandbox: Sandbox) -> None:
    ready = False
    for message in sandbox.messages():
        if "unshared" in message:
            try:
                write(sandbox.pid)
            except OSError as error:
                raise namespace_errors.explain("uid_map", error) from error
            sandbox.control.sendall(b"mapped\n")
        elif "init" in message:
            sandbox.init_pid = message["init"]
        elif "ready" in message:
            ready = True
        if ready and sandbox.init_pid:
            return
    raise RefusedError("the sandbox ended while it was being made", fix="dmesg | tail")


def _ended_by(code: int) -> TorchnetError | None:
    number = code - 128 if code > 128 else -code
    if number <= 0:
        return None  # all nodes have ended, and so has it
    return TorchnetError(
        f"the process that holds the networks was killed by {signal.Signals(number).name}, and all nodes with it; "
        "where nobody did it by hand, memory ran out",
        fix="dmesg | tail",
    )


def _supervise(
    control: socket.socket,
    parent: int,
    nodes: Sequence[NodePlan],
    main: NodeMain,
    shape: SandboxShape,
    node_files: Sequence[int],
) -> NoReturn:
    os.setsid()  # Ctrl-C and a closed terminal reach torchnet alone, which then stops the job in order
    _step(control, "user namespace", lambda: namespaces.unshare(namespaces.NEWUSER))
    _tell(control, {"unshared": True})
    if control.recv(7) != b"mapped\n":
        os._exit(1)
    namespaces.die_with_parent(signal.SIGKILL, parent)
    kinds = namespaces.NEWPID | namespaces.NEWNS | namespaces.NEWNET | namespaces.NEWUTS | namespaces.NEWIPC
    _step(control, "namespaces", lambda: namespaces.unshare(kinds))
    child = os.fork()
    if child == 0:
        _guarded(control, lambda: _init(control, nodes, main, shape, node_files))
    _close(node_files)
    _tell(control, {"init": child})  # its number out here
    control.close()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _init(
    control: socket.socket,
    nodes: Sequence[NodePlan],
    main: NodeMain,
    shape: SandboxShape,
    node_files: Sequence[int],
) -> NoReturn:
    namespaces.die_with_parent(
        signal.SIGKILL, 0
    )  # the parent is outside of this PID namespace: its number is 0
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _step(
        control,
        "mounts",
        lambda: namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE),
    )
    _step(control, "proc", mount_proc)
    planted = PlantedFault(shape.faults)
    try:
        fabric = build_fabric(nodes, rate=shape.rate, mtu=shape.mtu, internet=shape.internet, planted=planted)
    except OSError as error:
        if error.errno not in namespace_errors.REFUSALS:
            raise
        _refuse(control, "links", error)
    running: dict[int, int] = {}
    for node, namespace in zip(nodes, fabric.namespaces, strict=True):
        step = lambda what: _step(control, what[0], what[1])  # noqa: E731
        running[start_node(node, namespace, step, main, internet=shape.internet)] = node.rank
    fabric.close_namespaces()
    _close(node_files)
    _tell(control, {"ready": True})
    steps = planted.timed()
    began = time.monotonic()
    while running:
        if steps and time.monotonic() - began >= steps[0][0]:
            _, fault, comes = steps.pop(0)
            with contextlib.suppress(OSError):  # two faults may undo the same thing
                carry_out(
                    fault, comes, nodes[fault.node], fabric.inside[fault.node], fabric.bridges, shape.mtu
                )
            continue
        pid, status = os.waitpid(-1, os.WNOHANG if steps else 0)
        if not pid:
            time.sleep(_FAULT_SECONDS)
        elif pid in running:
            _tell(control, {"node": running.pop(pid), "status": os.waitstatus_to_exitcode(status)})
    os._exit(0)


def mount_proc() -> None:
    """A /proc of the PID namespace that this process is in."""
    flags = namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC
    namespaces.mount("proc", "/proc", "proc", flags)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _step(control: socket.socket, name: str, action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        _refuse(control, name, error)


def _refuse(control: socket.socket, name: str, error: OSError) -> NoReturn:
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
