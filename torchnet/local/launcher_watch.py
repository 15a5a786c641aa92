"""How the supervisor waits: for its children to end, or for the launcher to."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Collection

_POLL_MILLISECONDS = 200  # between two checks, where the kernel has no pidfd_open(2)


class LauncherWatch:
    """Waits for children, and notices the launcher's end however it ends.

    The launcher's end of the control socket closes with it, unless another process that it has forked holds a copy.
    Its process ID file descriptor does not have that problem, but needs Linux 5.3. Rejected: PR_SET_PDEATHSIG, which
    the kernel sends when the *thread* that started the supervisor ends.

    Args:
        control: The socket to the launcher, which sends nothing more.
        launcher: The launcher's process ID.
    """

    def __init__(self, control: socket.socket, launcher: int) -> None:
        self._launcher = launcher
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._timeout: int | None = None
        try:
            self._poll.register(os.pidfd_open(launcher), select.POLLIN)
        except (AttributeError, OSError):  # an old kernel or Python, or a seccomp filter
            self._timeout = _POLL_MILLISECONDS
        self._wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wakeup, select.POLLIN)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def wait(self, children: Collection[int]) -> dict[int, int] | None:
        """Wait until all ``children`` have ended, and reap any others.

        Returns:
            Their exit codes as of `os.waitstatus_to_exitcode`, by process ID; None if the launcher has ended first.
        """
        codes: dict[int, int] = {}
        while True:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])
                if codes.keys() >= {*children}:
                    return {pid: codes[pid] for pid in children}
            ready = [descriptor for descriptor, _ in self._poll.poll(self._timeout)]
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
                ready.remove(self._wakeup)
            if ready or os.getppid() != self._launcher:
                return None
