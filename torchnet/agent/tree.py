"""All processes below the agent, also those that left their parents or sessions."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable


def descendants(without: Collection[int] = ()) -> list[int]:
    """The pids of every process below this one, children before grandchildren; not ``without`` and what is below them.

    As pid 1 of its namespace the agent is the parent of every orphan; elsewhere it has asked to be
    (PR_SET_CHILD_SUBREAPER), so nothing can leave the tree.
    """
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _parent(int(name))
            if parent is not None:
                parents.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = list(parents.get(os.getpid(), ()))
    while queue:
        pid = queue.pop(0)
        if pid not in without:
            found.append(pid)
            queue += parents.get(pid, ())
    return found


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def signal_all(number: int) -> int:
    """Send a signal to all of them; returns how many there were."""
    pids = descendants()
    send(number, pids)
    return len(pids)


def kill_all(seconds: float = 5.0) -> None:
    """SIGKILL until nothing is left: what is started meanwhile is found by the next look."""
    deadline = time.monotonic() + seconds
    while signal_all(signal.SIGKILL) and time.monotonic() < deadline:
        time.sleep(0.01)


def _parent(pid: int) -> int | None:
    """The parent of a process that still runs; a zombie is as good as gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == b"Z" else int(parent)
