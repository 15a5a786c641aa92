"""Explain why a process failed, as far as that is visible from outside."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchnet.agent.events import Failure
from torchnet.agent.spec import AgentSpec

if TYPE_CHECKING:
    from torchnet.agent.rank_process import Process

_HINTS = {
    "SIGKILL": "unless sent by hand, the kernel ran out of memory (see dmesg)",
    "SIGBUS": "often /dev/shm is full (DataLoader workers need it)",
}

# Python's error for the URL tcp://MASTER_ADDR:MASTER_PORT with an IPv6 address without brackets.
_UNBRACKETED = re.compile(r"Port could not be cast to integer value as '[0-9a-f:]*:")
_BRACKETS = (
    "an IPv6 MASTER_ADDR needs brackets in a URL: use init_method='env://', or --family ipv4 (the local backend has "
    "both)"
)

# Errors of Python, Gloo, NCCL and PyTorch's store after a peer closed a connection. Refused connections are not
# included, as no peer closed them; a line that names a web address is not about a peer.
_ECHO = re.compile(
    r"connection (was )?(likely )?(closed|reset|aborted)|closed by (remote )?peer|broken ?pipe"
    r"|connection(reset|aborted)error|ncclRemoteError|remote (process|server|peer)",
    re.IGNORECASE,
)
_ELSEWHERE = re.compile(r"https?\b|\bhost=|port=\d", re.IGNORECASE)


def explain_end(process: Process, spec: AgentSpec, memory: str = "") -> Failure:
    """Describe the failure of a process: its exit code, its error message and its last lines.

    ``memory`` is the text of an out-of-memory kill, if the kernel reported one.
    """
    code = process.code or 0
    if process.signal:
        name = _signal_name(process.signal)
        hint = f": {memory}" if memory else f"; {_HINTS[name]}" if name in _HINTS else ""
        text = f"rank {process.rank} on {spec.name} was killed by {name} (exit code {code}){hint}"
    else:
        text = f"rank {process.rank} on {spec.name} exited with code {code}"
    cause = process.cause()
    if cause:
        text += f": {cause}"
    if any(_UNBRACKETED.search(line) for line in process.tail()):
        text += f"; {_BRACKETS}"
    return Failure(
        "script", text, code, rank=process.rank, node=spec.name, at=process.ended_at, tail=process.tail()
    )


def is_echo(failure: Failure) -> bool:
    """Return whether a process seems to have failed because a peer did: its output is about a closed connection.

    A process that a signal killed is not an echo, except for SIGABRT, with which NCCL and C++ end.
    """
    if failure.kind != "script" or (failure.code > 128 and failure.code != 128 + signal.SIGABRT):
        return False
    lines = (failure.text, *failure.tail)
    return any(_ECHO.search(line) for line in lines) and not any(_ELSEWHERE.search(line) for line in lines)


def first_of(candidates: Sequence[Failure]) -> Failure:
    """Return the root cause of failures that arrived close together: causes before echoes, then by time.

    If a worker was lost and other workers' processes failed, the loss is the cause.
    """
    order = {"interrupted": 0, "script": 1, "lost": 2}
    failure = min(candidates, key=lambda f: (is_echo(f), f.at, order.get(f.kind, 3)))
    lost = next((f for f in candidates if f.kind == "lost"), None)
    return lost if lost is not None and failure.kind == "script" else failure


def stop_reason(candidates: Sequence[Failure], *, restartable: bool) -> tuple[Failure, bool]:
    """Return the failure that stops the job, and whether the job restarts.

    A job restarts after failures of its processes alone.
    """
    failure = first_of(candidates)
    if not restartable or failure.kind != "script":
        return failure, False
    other = next((candidate for candidate in candidates if candidate.kind != "script"), None)
    return (other, False) if other else (failure, True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
