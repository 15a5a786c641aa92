"""Nodes of the local networks whose first processes are functions of a test: forked, where torchnet executes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence

from torchnet.local import sandbox, supervisor_process
from torchnet.local.control_messages import guarded
from torchnet.local.topology import NodePlan, SandboxShape


class _Forked:
    """Looks like `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        return self._reap(0) or 0

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self, options: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def start(
    nodes: Sequence[NodePlan], main: Callable[[int], int], shape: SandboxShape
) -> supervisor_process.Supervisor:
    """Run ``main(rank)`` in each node with this process's standard streams; return once the nodes exist."""
    ours, theirs = socket.socketpair()
    launcher = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.setsid()
        guarded(theirs, lambda: sandbox.supervise(theirs, launcher, nodes, main, shape))
    theirs.close()
    supervisor = supervisor_process.Supervisor(_Forked(pid), ours)
    try:
        supervisor_process.set_up(supervisor)
    except BaseException:
        supervisor.kill()
        raise
    return supervisor
