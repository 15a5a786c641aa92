"""The signals that stop a job: which, and what the processes get."""

from __future__ import annotations

import signal
import time
from collections.abc import Collection

from torchnet.agent.events import Failure

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""All that torchelastic's agent handles: as PID 1 of a container, a process ignores those that it does not handle. Some
images stop their containers by SIGQUIT."""

# They cannot be handled, or mean something else to those who get them.
_OTHERS = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTSTP, signal.SIGCHLD, signal.SIGPIPE),
}
NAMES = tuple(one.name for one in signal.Signals if one not in _OTHERS)
"""The names that ``--signals-to-handle`` accepts."""


def handled(names: Collection[str]) -> list[int]:
    """Return the signals that stop the job: SIGNALS, and those with these names.

    A SIGHUP that is ignored stays so, as nohup requests. SIGINT does not: a shell ignores it for what a script runs in
    its background, where torchrun handles it, too.
    """
    numbers: dict[int, None] = dict.fromkeys([*SIGNALS, *(signal.Signals[name] for name in names)])
    return [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


def interrupted(number: int) -> Failure:
    """Describe the signal that stops torchnet."""
    return Failure("interrupted", f"stopped by {signal.Signals(number).name}", 128 + number, at=time.time())


def second_interrupt(grace: float) -> str:
    """Tell the user what a second Ctrl-C does; ``grace`` is in seconds."""
    return f"stopping: the processes have {grace:g} s to exit; press Ctrl-C again to kill them"


def stop_signal(failure: Failure, runtime: str) -> int:
    """Return the signal that stops the processes: the one that stopped torchnet, else SIGTERM.

    In a pod it is SIGTERM, as from the kubelet, whatever signal the image stops its container by.
    """
    number = failure.code - 128 if failure.kind == "interrupted" and runtime != "kubernetes" else 0
    return number if number in signal.valid_signals() - _OTHERS else signal.SIGTERM
