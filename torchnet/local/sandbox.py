"""The namespaces of a local job, and the two processes that hold them.

torchnet ── supervisor ── init (PID 1 of the job) ── node 0 (PID 1 of its own namespace), node 1, …

No namespace has a name: when a process of this chain ends, the kernel kills those to its right and removes
their namespaces, links and mounts. The supervisor exists because a process cannot enter a new PID namespace
itself. User and group IDs are mapped as in user_namespaces(7), by torchnet (`torchnet.local.supervisor_process`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from torchnet.linux import namespaces
from torchnet.local import namespace_errors
from torchnet.local.control_messages import guarded, send
from torchnet.local.fabric import build_fabric
from torchnet.local.faults import InjectedFaults, apply_timed_fault
from torchnet.local.launcher_watch import LauncherWatch
from torchnet.local.node import start_node
from torchnet.local.topology import NodePlan, SandboxShape

_FAULT_SECONDS = 0.02  # resolution of timed faults
NodeMain = Callable[[int], int]


def supervise(
    control: socket.socket,
    launcher: int,
    nodes: Sequence[NodePlan],
    main: NodeMain,
    shape: SandboxShape,
    node_files: Sequence[int] = (),
) -> NoReturn:
    """Create namespaces and networks, and run ``main(rank)`` in each node with this process's standard streams.

    Args:
        control: the socket to the launcher (see `torchnet.local.control_messages`).
        launcher: the launcher's process ID.
        main: runs as PID 1 of the node, without capabilities; returns the node's exit code.
        node_files: descriptors for the nodes only. The processes above them close these, so that whatever
            holds the other end of a node's socket notices when the node ends.
    """
    watch = LauncherWatch(control, launcher)
    _step(control, "user namespace", lambda: namespaces.unshare(namespaces.NEWUSER))
    send(control, {"unshared": True})
    if control.recv(7) != b"mapped\n":
        os._exit(1)
    kinds = namespaces.NEWPID | namespaces.NEWNS | namespaces.NEWNET | namespaces.NEWUTS | namespaces.NEWIPC
    _step(control, "namespaces", lambda: namespaces.unshare(kinds))
    init = os.fork()
    if init == 0:
        guarded(control, lambda: _init(control, nodes, main, shape, node_files))
    _close(node_files)
    send(control, {"init": init})  # its PID outside
    codes = watch.wait([init])
    if codes is None:
        os.kill(init, signal.SIGKILL)
        os.waitpid(init, 0)  # until the kernel has ended all processes of its PID namespace
        os._exit(1)
    code = codes[init]
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
    faults = InjectedFaults(shape.faults)
    try:
        fabric = build_fabric(nodes, rate=shape.rate, mtu=shape.mtu, internet=shape.internet, faults=faults)
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
    send(control, {"ready": True})
    steps = faults.timed()
    began = time.monotonic()
    while running:
        if steps and time.monotonic() - began >= steps[0][0]:
            _, fault, begins = steps.pop(0)
            with contextlib.suppress(OSError):  # two faults may revert the same change
                apply_timed_fault(
                    fault, begins, nodes[fault.node], fabric.inside[fault.node], fabric.bridges, shape.mtu
                )
            continue
        pid, status = os.waitpid(-1, os.WNOHANG if steps else 0)
        if not pid:
            time.sleep(_FAULT_SECONDS)
        elif pid in running:
            send(control, {"node": running.pop(pid), "status": os.waitstatus_to_exitcode(status)})
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
    send(control, {"refused": [name, error.errno, error.strerror]})
    os._exit(1)
