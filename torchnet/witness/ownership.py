"""Which sockets belong to the command: those that its processes have open, by inode (/proc/PID/fd).

This needs no privilege: processes of the same user can read a process's descriptors, unless it has changed its
credentials.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from torchnet.agent.worker_processes import descendants

_SOCKET = "socket:["
_NAME_BYTES = 4096
_NAME_LIMIT = 60  # characters


@dataclass(frozen=True)
class OpenSockets:
    """The sockets that the command's processes have open.

    Attributes:
        holders: A process by the socket's inode.
        unreadable: Processes whose descriptors cannot be read.
        elsewhere: Processes in another network namespace, whose traffic is not visible here.
    """

    holders: dict[int, int] = field(default_factory=dict)
    unreadable: tuple[int, ...] = ()
    elsewhere: tuple[int, ...] = ()


def open_sockets() -> OpenSockets:
    """Read the descriptors of all descendants of this process."""
    holders: dict[int, int] = {}
    unreadable, elsewhere = [], []
    own = os.readlink("/proc/self/ns/net")
    for pid in descendants():
        try:
            if os.readlink(f"/proc/{pid}/ns/net") != own:
                elsewhere.append(pid)
                continue
            for number in os.listdir(f"/proc/{pid}/fd"):
                inode = _inode(f"/proc/{pid}/fd/{number}")
                if inode:
                    holders.setdefault(inode, pid)
        except PermissionError:
            unreadable.append(pid)
        except OSError:
            continue  # it has ended
    return OpenSockets(holders, tuple(unreadable), tuple(elsewhere))


def process_name(pid: int) -> str:
    """Return a process's program and script: ``python train.py``. Further arguments may contain secrets."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read(_NAME_BYTES).split(b"\0") if word]
        if not words:
            with open(f"/proc/{pid}/comm", "rb") as file:
                return os.fsdecode(file.read().strip())
    except OSError:
        return "?"
    return shortened(words)


def shortened(words: list[str]) -> str:
    """Return the program and, for an interpreter with options, the script or module: the first word without a dash."""
    program = os.path.basename(words[0])
    if "python" not in program:
        return program[:_NAME_LIMIT]
    for word in words[1:]:
        if word == "-c":
            return f"{program} -c"
        if not word.startswith("-"):
            return f"{program} {os.path.basename(word)}"[:_NAME_LIMIT]
    return program[:_NAME_LIMIT]


def _inode(path: str) -> int:
    try:
        target = os.readlink(path)
    except FileNotFoundError:
        return 0  # closed meanwhile
    return int(target[len(_SOCKET) : -1]) if target.startswith(_SOCKET) else 0
