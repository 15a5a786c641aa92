"""``--network loopback``: the same agents on 127.0.0.1, .2, …, without namespaces; it proves nothing, and says so."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

from torchnet.agent import tree
from torchnet.kernel import syscalls
from torchnet.network.status import StatusEntry


class Loopback:
    """The nodes' processes; the counterpart of a sandbox."""

    def __init__(self, count: int, main: Callable[[int], int]) -> None:
        parent = os.getpid()
        syscalls.adopt_orphans()  # no PID namespace does it here
        self._pids: list[int] = []
        for rank in range(count):
            pid = os.fork()
            if pid == 0:
                code = 70
                try:
                    os.setsid()
                    # Not SIGKILL: the agent is to end what its processes started, first.
                    syscalls.die_with_parent(signal.SIGTERM, parent)
                    code = main(rank)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code & 0xFF)
            self._pids.append(pid)

    def complaint(self) -> None:
        """Nothing has to be set up here that could be refused."""

    def kill(self) -> None:
        """End all at once, wherever it has detached itself to."""
        tree.kill_all()
        self.wait()

    def wait(self) -> None:
        for pid in self._pids:
            os.waitpid(pid, 0)
        self._pids = []


def address(rank: int) -> str:
    """Node ``rank``'s address; all of 127.0.0.0/8 is the machine's own."""
    number = rank + 1
    return f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}"


class Source:
    """The address source of a node on loopback: one rail, which is lo."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def attachments(self) -> tuple[StatusEntry, ...]:
        return (StatusEntry(name="loopback", interface="lo", ips=(address(self._rank),)),)

    def rank0(self) -> tuple[str, ...]:
        return (address(0),)
