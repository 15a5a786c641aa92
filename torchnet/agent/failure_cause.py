"""Why a process ended with an error, as far as that can be known from outside of it."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from torchnet.agent.events import Failure
from torchnet.agent.rank_process import Process
from torchnet.agent.spec import AgentSpec

_HINTS = {
    "SIGKILL": "where nobody did it by hand, memory ran out (dmesg tells)",
    "SIGBUS": "often /dev/shm is full (DataLoader workers need it)",
}

# Python's words for the URL tcp://MASTER_ADDR:MASTER_PORT, written so, where MASTER_ADDR is an IPv6 address.
_UNBRACKETED = re.compile(r"Port could not be cast to integer value as '[0-9a-f:]*:")
_BRACKETS = (
    "in an URL, MASTER_ADDR needs brackets when it is an IPv6 address: init_method='env://' takes it as it is, and "
    "--family ipv4 makes it another (the local backend has both)"
)

# What Python, Gloo, NCCL and torch's store say when the other end of a connection has gone.  A connection that was
# refused is none that a peer took along, and what names a web address was to nobody of this job.
_ECHO = re.compile(
    r"connection (was )?(likely )?(closed|reset|aborted)|closed by (remote )?peer|broken ?pipe"
    r"|connection(reset|aborted)error|ncclRemoteError|remote (process|server|peer)",
    re.IGNORECASE,
)
_ELSEWHERE = re.compile(r"https?\b|\bhost=|port=\d", re.IGNORECASE)


def explain_end(process: Process, spec: AgentSpec, memory: str = "") -> Failure:
    """The failure that a process's end is: its own exit code, what it said of the cause, and its last lines.

    ``memory`` says that the kernel killed for memory, where it told.
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
    """Whether a process seems to have failed because another one did: its last words are of a connection that ended.

    A process that a signal ended did not fail by itself; only SIGABRT is what NCCL and C++ end with, too.
    """
    if failure.kind != "script" or (failure.code > 128 and failure.code != 128 + signal.SIGABRT):
        return False
    said = (failure.text, *failure.tail)
    return any(_ECHO.search(line) for line in said) and not any(_ELSEWHERE.search(line) for line in said)


def first_of(candidates: Sequence[Failure]) -> Failure:
    """The failure that is the job's, among those that were told close together: causes before echoes, then by time.

    Where a worker went away and processes of others failed, they failed because of it, not the other way round.
    """
    order = {"interrupted": 0, "script": 1, "lost": 2}
    failure = min(candidates, key=lambda f: (is_echo(f), f.at, order.get(f.kind, 3)))
    lost = next((f for f in candidates if f.kind == "lost"), None)
    return lost if lost is not None and failure.kind == "script" else failure


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
