"""The namespaces of a local job, and the two processes that hold them.

torchnet ── supervisor ── init (PID 1 of the job) ── node 0 (PID 1 of its own namespace), node 1, …

No namespace has a name: when a process of this chain ends, the kernel kills those to its right and removes
their namespaces, links and mounts. The supervisor exists because a process cannot enter a new PID namespace
itself. User and group IDs are mapped as in user_namespaces(7).
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
    """Write the ID maps of process ``pid``'s new user namespace.

    Root maps every ID that exists here onto itself, so that files keep their owners. Any other user may map
    only its own ID: its files stay its own, and those of others appear as nobody's.

    Raises:
        OSError: the kernel refused, e.g. because a policy removed this process's capabilities.
    """
    if os.geteuid() == 0:
        try:
            _write(pid, "uid_map", _whole("uid_map"))
            _write(pid, "gid_map", _whole("gid_map"))
            return
        except PermissionError:
            pass  # without CAP_SETUID root is like any other user, and its own ID needs CAP_SETFCAP
    _write(pid, "setgroups", "deny")
    _write(pid, "uid_map", f"{os.geteuid()} {os.geteuid()} 1")
    _write(pid, "gid_map", f"{os.getegid()} {os.getegid()} 1")


def _whole(name: str) -> str:
    with open(f"/proc/self/{name}") as file:
        lines = [line.split() for line in file]
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in lines)


def _write(pid: int, name: str, text: str) -> None:
    # The kernel accepts a map only in a single write.
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


_FAULT_SECONDS = 0.02  # resolution of timed faults
NodeMain = Callable[[int], int]


@dataclass(frozen=True)
class SandboxShape:
    """Parameters of the networks.

    Attributes:
        rate: bits per second of a backend link in each direction; None: unlimited.
        mtu: of the backend, in bytes.
        internet: whether nodes have a default route.
        faults: planted faults.
    """

    rate: int | None = None
    mtu: int = 9000
    internet: bool = False
    faults: tuple[Fault, ...] = ()


class Sandbox:
    """A running sandbox, seen from outside; ``control`` reports, one JSON line each, how nodes end."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.init_pid = 0
        self._unread = b""
        self._ended = False

    def messages(self, *, wait: bool = True) -> Iterator[dict[str, Any]]:
        """Yield the sandbox's messages as they arrive; without ``wait``, only those that have arrived.

        Raises:
            RefusedError: the machine refused a step of the set-up.
            TorchnetError: the set-up failed for another reason.
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
        """Kill everything in the sandbox; return when the kernel has removed it."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def complaint(self) -> TorchnetError | None:
        """Return why a node could not be set up or why the sandbox was killed; None otherwise."""
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
    """Create namespaces and networks, and run ``main(rank)`` in each node with this process's standard streams.

    Args:
        main: runs as PID 1 of the node, without capabilities; returns the node's exit code.
        node_files: descriptors for the nodes only. The processes above them close these, so that whatever
            holds the other end of a node's socket notices when the node ends.

    Raises:
        RefusedError: the kernel, or a policy, refuses namespaces; names the mechanism and a fix.
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
        return None  # a normal end, after all nodes
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
    os.setsid()  # Ctrl-C and a closed terminal only signal torchnet, which then stops the job in order
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
    _tell(control, {"init": child})  # its PID outside
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
    namespaces.die_with_parent(signal.SIGKILL, 0)  # the parent is outside this PID namespace: its PID is 0
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
            with contextlib.suppress(OSError):  # two faults may revert the same change
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
    """Mount /proc for this process's PID namespace."""
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
    """Run the child's part; never return into the code of the process that forked it."""
    try:
        action()
    except BaseException as error:  # the parent raises it
        _tell(control, {"broken": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(70)
