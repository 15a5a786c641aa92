"""Which connections are those of this process's descendants, on a host that others use, too.

A connection is theirs if one of them has its socket open, by inode (/proc/PID/fd). This needs no privilege: processes
of the same user can read a process's descriptors, unless it has changed its credentials. It is another process's if
that one has it open, or if another user opened it. Otherwise its owner is unknown: it began and ended between two looks
(unless its local port is one on which a descendant listens), or no descriptor shows it (registered files of io_uring).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from torchnet.agent.process_tree import descendants
from torchnet.linux import namespaces
from torchnet.linux.sock_diag import SocketBytes

Owner = Literal["job", "unknown", "other"]

_SOCKET = "socket:["
_NAME_BYTES = 4096
_NAME_LIMIT = 60  # characters
_ABSENT = 2  # looks at the descendants' descriptors without finding a socket; then all processes are searched for it
_LEAST_SEARCH_SECONDS, _SEARCH_LOAD = 0.5, 0.01  # between two searches; the load is of a core


@dataclass(frozen=True)
class OpenSockets:
    """The sockets that the descendants have open.

    Attributes:
        holders: A process by the socket's inode.
        unreadable: Processes whose descriptors cannot be read.
        elsewhere: Processes in another network namespace, whose traffic is not visible here.
    """

    holders: dict[int, int] = field(default_factory=dict)
    unreadable: tuple[int, ...] = ()
    elsewhere: tuple[int, ...] = ()


def open_sockets() -> OpenSockets:
    """Read the descriptors of all descendants."""
    holders: dict[int, int] = {}
    unreadable, elsewhere = [], []
    own = os.readlink("/proc/self/ns/net")
    for pid in descendants():
        try:
            # By thread: one may have descriptors of its own (CLONE_FILES), or the first thread may have ended.
            for thread in os.listdir(f"/proc/{pid}/task"):
                if _shares(pid, int(thread)):
                    continue
                folder = f"/proc/{pid}/task/{thread}"
                try:
                    if os.readlink(f"{folder}/ns/net") != own:
                        elsewhere.append(pid)  # but what it opened before belongs to this namespace
                    inodes = _inodes(folder)
                except (FileNotFoundError, ProcessLookupError):
                    continue  # the thread has ended
                for inode in inodes:
                    holders.setdefault(inode, pid)
        except PermissionError:
            unreadable.append(pid)
        except OSError:
            continue  # it has ended
    return OpenSockets(holders, tuple(unreadable), tuple(elsewhere))


def others_sockets() -> set[int]:
    """Return the inodes of the sockets that readable processes other than the descendants have open."""
    found: set[int] = set()
    own = set(map(str, descendants()))
    for name in os.listdir("/proc"):
        if name.isdigit() and name not in own:
            try:
                found.update(_inodes(f"/proc/{name}"))
            except OSError:
                continue  # it has ended, or is another user's
    return found


def _inodes(folder: str) -> list[int]:
    inodes = (_inode(f"{folder}/fd/{number}") for number in os.listdir(f"{folder}/fd"))
    return [inode for inode in inodes if inode]


def _shares(pid: int, thread: int) -> bool:
    """Return whether a thread has the same descriptors as the first one, which is asked once."""
    if thread == pid:
        return False
    try:
        return namespaces.same_files(pid, thread)
    except ProcessLookupError:
        return False  # the first thread has ended
    except OSError:
        # kcmp(2) is denied or missing. Reading each of hundreds of threads would take seconds, and few have files of
        # their own; the owners of their sockets stay unknown.
        return True


@dataclass(frozen=True)
class Process:
    """A process, and its program and script."""

    pid: int = 0
    name: str = "?"


@dataclass
class _Entry:
    owner: Owner = "unknown"
    process: Process = Process()
    absent: int = 0


class SocketOwners:
    """The owners of the open connections and listening sockets; all that are open at the start are other processes'.

    Attributes:
        unreadable: Names of descendants whose descriptors could not be read.
        elsewhere: Names of descendants in other network namespaces.
        search_seconds: CPU time that the last look spent on a search of all processes, which has a limit of its own.
    """

    def __init__(self, connections: Iterable[SocketBytes], listening: Iterable[SocketBytes]) -> None:
        self._entries = {one.cookie: _Entry("other") for one in (*connections, *listening)}
        self._ports: dict[int, Process] = {}
        self.unreadable: set[str] = set()
        self.elsewhere: set[str] = set()
        self.search_seconds = 0.0
        self._next_search = 0.0

    def look(
        self, connections: Iterable[SocketBytes], listening: Iterable[SocketBytes], *, last: bool = False
    ) -> None:
        """Learn the owners of the sockets that are open now; the descriptors are read only if one is unknown.

        Args:
            last: search all processes for the others, even if that was done a moment ago.
        """
        listening = tuple(listening)
        unknown = []
        absent: list[tuple[SocketBytes, _Entry]] = []
        for socket in (*connections, *listening):
            entry = self._entries.setdefault(socket.cookie, _Entry())
            if entry.owner == "unknown" and socket.inode:  # 0 until the connection has been accepted
                if entry.absent >= _ABSENT:  # it is still open, so it was during both looks
                    absent.append((socket, entry))
                else:
                    unknown.append((socket.inode, entry))
        if unknown:
            self._find(unknown)
        self.search_seconds = 0.0
        if absent and (last or time.monotonic() >= self._next_search):
            self._search(absent)
        for socket in listening:
            entry = self._entries[socket.cookie]
            if entry.owner == "job":
                self._ports[socket.local_port] = entry.process

    def _find(self, unknown: list[tuple[int, _Entry]]) -> None:
        scan = open_sockets()
        names: dict[int, str] = {}

        def process(pid: int) -> Process:
            if pid not in names:
                names[pid] = process_name(pid)
            return Process(pid, names[pid])

        self.unreadable.update(process(pid).name for pid in scan.unreadable)
        self.elsewhere.update(process(pid).name for pid in scan.elsewhere)
        for inode, entry in unknown:
            if inode in scan.holders:
                entry.owner, entry.process = "job", process(scan.holders[inode])
            elif not scan.unreadable:
                entry.absent += 1

    def _search(self, absent: Iterable[tuple[SocketBytes, _Entry]]) -> None:
        """Find out which of these sockets are another process's; the others may be in no descriptor at all."""
        began = time.thread_time()
        held = others_sockets()
        user = os.geteuid()
        for socket, entry in absent:
            if socket.inode in held or (user and socket.uid != user and not self.unreadable):
                entry.owner = "other"
        self.search_seconds = time.thread_time() - began
        self._next_search = time.monotonic() + max(_LEAST_SEARCH_SECONDS, self.search_seconds / _SEARCH_LOAD)

    def owner(self, socket: SocketBytes) -> tuple[Owner, Process]:
        """Return the owner of a connection, also after its end."""
        entry = self._entries.get(socket.cookie, _Entry())
        if entry.owner == "unknown" and socket.local_port in self._ports:
            return "job", self._ports[socket.local_port]
        return entry.owner, entry.process

    def is_another(self, cookie: int) -> bool:
        """Return whether a connection is known to be another process's."""
        return self._entries.get(cookie, _Entry()).owner == "other"

    def accepted(self, socket: SocketBytes) -> bool:
        """Return whether a connection came in at a port on which a descendant listens."""
        return socket.local_port in self._ports

    def forget(self, cookie: int) -> None:
        """Forget a connection that has ended."""
        self._entries.pop(cookie, None)


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
