"""Why a process ended with an error, as far as that can be known from outside of it."""

from __future__ import annotations

import signal

from torchnet.agent.process import Process
from torchnet.agent.report import Failure
from torchnet.agent.spec import AgentSpec

_HINTS = {
    "SIGKILL": "where nobody did it by hand, memory ran out (dmesg tells)",
    "SIGBUS": "often /dev/shm is full (DataLoader workers need it)",
}


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
        "script", text, code, rank=process.rank, node=spec.name, at=process.ended_at, tail=list(process.tail)
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
