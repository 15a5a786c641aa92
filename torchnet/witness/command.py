"""The command that is observed. It runs as it would by itself: same environment, standard streams and process group."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from torchnet.errors import TorchnetError
from torchnet.linux import namespaces
from torchnet.linux.signal_descriptor import SignalDescriptor
from torchnet.text import printable

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # the interpreter's, which the command must not inherit


class CannotExecuteError(TorchnetError):
    """The command cannot be executed: exit code 126, or 127 if it does not exist, as in a shell."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f'cannot execute "{printable(name, 200)}": {error.strerror}')
        self.exit_code = 127 if isinstance(error, FileNotFoundError) else 126


class Source(Protocol):
    """Something that is read while the command runs."""

    def fileno(self) -> int: ...


def run(
    argv: Sequence[str], source: Source, readable: Callable[[], None], sample: Callable[[], float]
) -> int:
    """Run the command to its end, and return its exit code; 128 + N if signal N ended it.

    Signals that this process gets are forwarded, except those of the terminal, which the command gets itself.

    Args:
        readable: Called when ``source`` is readable.
        sample: Called repeatedly; it returns the seconds until the next call.

    Raises:
        CannotExecuteError: nothing was started.
    """
    # If it were ignored, the kernel would discard the exit status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    handled = {signal.SIGCHLD, *FORWARDED}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    signals = SignalDescriptor(handled)
    try:
        # Processes that leave their parents stay below this one.
        namespaces.adopt_orphans()
        try:
            pid = os.posix_spawnp(
                argv[0],
                list(argv),
                initial_environment(),
                setsigmask=before,
                setsigdef=_IGNORED_BY_PYTHON,
            )
        except OSError as error:
            raise CannotExecuteError(argv[0], error) from None
        due = time.monotonic()
        while True:
            if time.monotonic() >= due:
                due = time.monotonic() + sample()
            code = _wait(pid, signals, source, readable, max(0.0, due - time.monotonic()))
            if code is not None:
                return code
    finally:
        signals.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(
    pid: int, signals: SignalDescriptor, source: Source, readable: Callable[[], None], seconds: float
) -> int | None:
    """Wait until something has happened, for at most ``seconds``; return the exit code once the command has ended."""
    ready, _, _ = select.select([signals, source], [], [], seconds)
    if source in ready:
        readable()
    for received in signals.read() if signals in ready else ():
        if received.number == signal.SIGCHLD:
            code = _reap(pid)
            if code is not None:
                return code
        elif not received.to_group:
            os.kill(pid, received.number)  # not reaped yet, so the PID is still the command's
    return None


def _reap(command: int) -> int | None:
    """Reap all children that have ended, including adopted ones; return the command's exit code if it has."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def initial_environment() -> dict[bytes, bytes]:
    """Return the environment that this process was started with.

    Not `os.environ`: Python sets LC_CTYPE in it if the locale is C (PEP 538).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    pairs = (entry.partition(b"=") for entry in entries if b"=" in entry[1:])
    return {name: value for name, _, value in pairs}
