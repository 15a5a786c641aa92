"""Why a process ended with an error, as far as that can be known from outside of it."""

from __future__ import annotations

import re
import signal

from torchnet.agent.process import Process
from torchnet.agent.report import Failure
from torchnet.agent.spec import AgentSpec

_HINTS = {
    "SIGKILL": "where nobody did it by hand, memory ran out (dmesg tells)",
    "SIGBUS": "often /dev/shm is full (DataLoader workers need it)",
}

# What Python, Gloo, NCCL and torch's store say when the other end of a connection has gone.
_ECHO = re.compile(
    r"connection (was )?(likely )?(closed|reset|refused|aborted)|closed by (remote )?peer|broken ?pipe"
    r"|connection\w*error|ncclRemoteError|remote (process|server|peer)",
    re.IGNORECASE,
)


def explain_end(process: Process, spec: AgentSpec) -> Failure:
    """The failure that a process's end is: its own exit code, what it said of the cause, and its last lines."""
    code = process.code or 0
    if code > 128:
        name = _signal_name(code - 128)
        hint = f"; {_HINTS[name]}" if name in _HINTS else ""
        text = f"rank {process.rank} on {spec.name} was killed by {name} (exit code {code}){hint}"
    else:
        text = f"rank {process.rank} on {spec.name} exited with code {code}"
    cause = process.cause()
    if cause:
        text += f": {cause}"
    return Failure(
        "script", text, code, rank=process.rank, node=spec.name, at=process.ended_at, tail=process.tail()
    )


def is_echo(failure: Failure) -> bool:
    """Whether a process seems to have failed because another one did: its last words are of a connection that ended.

    A process that a signal ended did not fail by itself; only SIGABRT is what NCCL and C++ end with, too.
    """
    if failure.kind != "script" or (failure.code > 128 and failure.code != 128 + signal.SIGABRT):
        return False
    return any(_ECHO.search(line) for line in (failure.text, *failure.tail))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
