"""The processes below the agent, including those that left their parents or sessions."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable

from torchnet.agent import output_writer
from torchnet.text import listed, printable

_SHOWN = 4
_SHOWN_CHARACTERS = 60

_others: dict[int, int] = {}  # PIDs that are not the job's, and when they started


def disown() -> None:
    """Do not count the processes that are below this one by now: they are not the job's.

    A shell that starts ``tee`` for ``> >(tee log)``, or anything in the background, and then executes torchnet leaves
    it these children.
    """
    _others.clear()
    pids = descendants()
    _others.update((pid, known[1]) for pid in pids if (known := _stat(pid)))


def descendants(without: Collection[int] = ()) -> list[int]:
    """Return all PIDs below this process, parents first, except ``without`` and the PIDs below them.

    The processes that write the output are not included, nor those that :func:`disown` has seen.

    The agent is the parent of every orphan, as PID 1 of its namespace or by PR_SET_CHILD_SUBREAPER, so no process can
    leave the tree.
    """
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            known = _stat(int(name))
            if known is not None and _others.get(int(name)) != known[1]:
                parents.setdefault(known[0], []).append(int(name))
    found: list[int] = []
    queue = list(parents.get(os.getpid(), ()))
    while queue:
        pid = queue.pop(0)
        if pid not in without and pid not in output_writer.pids:
            found.append(pid)
            queue += parents.get(pid, ())
    return found


def in_groups(groups: Collection[int]) -> set[int]:
    """Return the descendants in these process groups."""
    found = set()
    for pid in descendants() if groups else ():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) in groups:
                found.add(pid)
    return found


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to those processes that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def send_groups(number: int, groups: Iterable[int]) -> None:
    """Send a signal to process groups, each at once: a process that first loses its child's pipe raises EOFError."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def signal_all(number: int) -> int:
    """Send a signal to all descendants, and return their number."""
    pids = descendants()
    send(number, pids)
    return len(pids)


def kill_all(seconds: float = 5.0) -> None:
    """Send SIGKILL until no descendant is left, including those started meanwhile, or time is up."""
    deadline = time.monotonic() + seconds
    while signal_all(signal.SIGKILL) and time.monotonic() < deadline:
        time.sleep(0.01)


def describe(pids: Iterable[int]) -> str:
    """List the commands of processes, each with its rank if its environment names one."""
    return listed([text for pid in pids if (text := _command(pid))], _SHOWN)


def _command(pid: int) -> str:
    words, variables = _words(pid, "cmdline"), _words(pid, "environ")
    if not words:
        return ""
    if words[0].startswith("/"):  # a long path would leave no room for the arguments
        words[0] = os.path.basename(words[0])
    rank = next((word[5:] for word in variables if word.startswith("RANK=")), "")
    shown = printable(" ".join(words), _SHOWN_CHARACTERS)
    return f"rank {rank}'s {shown}" if rank.isdigit() else shown


def _words(pid: int, name: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return [word.decode(errors="replace") for word in file.read().split(b"\0") if word]
    except OSError:
        return []


def catches(pid: int, number: int) -> bool:
    """Return whether the process handles the signal (SigCgt in proc(5)), which would kill it otherwise."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except (OSError, ValueError):
        pass
    return False


def _stat(pid: int) -> tuple[int, int] | None:
    """Return the parent of a running process, and when it started, in ticks since the boot; None for a zombie.

    A process whose first thread has ended is in the state of a zombie, too, while its other threads run.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        state, parent, threads, start = fields[0], int(fields[1]), int(fields[17]), int(fields[19])
    except (OSError, ValueError):
        return None
    return None if state == b"Z" and threads <= 1 else (parent, start)
