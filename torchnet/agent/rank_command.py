"""What each process executes, and its standard input."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from string import Template
from typing import IO, Any

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.spec import AgentSpec

STDIN_SCRIPT = "-"  # Python reads the script from standard input
_LOOK_SECONDS = 0.5
_WATCHED = 64


def argv(spec: AgentSpec, local_rank: int) -> list[str]:
    """Return the command of a process. ``${local_rank}`` is replaced, and ``$$`` is a dollar.

    Source:
        macros.substitute() in torch/distributed/elastic/utils/api.py, which does not change the program itself.
    """
    name, *arguments = spec.command
    arguments = [_substitute(word, local_rank) for word in arguments]
    if spec.entry == "program":
        return [name, *arguments]
    name = _substitute(name, local_rank)
    if spec.entry == "module":
        return [spec.python, "-u", "-m", name, *arguments]
    if name.startswith("-") and name != STDIN_SCRIPT:
        name = f"./{name}"  # Python would parse it as an option
    return [spec.python, "-u", name, *arguments]


def _substitute(word: str, local_rank: int) -> str:
    return Template(word).safe_substitute(local_rank=str(local_rank)) if "$" in word else word


class StandardInputs:
    """The processes' standard input: the agent's for one rank, and an empty file for the others.

    Args:
        read: called once, with the first rank that reads an empty one; None if there are too many to tell which.
    """

    def __init__(self, loop: EventLoop, spec: AgentSpec, read: Callable[[int | None], None]) -> None:
        self._loop = loop
        self._spec = spec
        self._read = read
        self._watched = spec.own_console  # nobody types into a pod
        # More files than that use up the descriptors: then all ranks share one, whose offset stays at its end.
        self._shared = len(spec.ranks) > _WATCHED
        self._empty: dict[int | None, int] = {}

    def open(self, rank: int) -> int | IO[Any]:
        """Return the standard input of a rank that is about to start."""
        if rank == self._spec.stdin_rank and sys.__stdin__:
            return sys.__stdin__
        if not self._watched:
            return subprocess.DEVNULL
        key = None if self._shared else rank
        if key not in self._empty:
            # Reading a file in memory sets its access time, even at its end; reading /dev/null leaves no trace.
            try:
                writable = os.memfd_create("stdin")
            except OSError:  # a seccomp filter
                return subprocess.DEVNULL
            os.utime(writable, ns=(0, 0))
            self._empty[key] = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
            os.close(writable)
            if len(self._empty) == 1:
                self._loop.later(_LOOK_SECONDS, self._poll)
        return self._empty[key]

    def look(self) -> None:
        """Report the first rank that has read its empty input."""
        for rank, file in self._empty.items():
            if os.fstat(file).st_atime_ns:
                self.close()
                self._read(rank)
                return

    def close(self) -> None:
        self._watched = False
        for file in self._empty.values():
            with contextlib.suppress(OSError):
                os.close(file)
        self._empty.clear()

    def _poll(self) -> None:
        self.look()
        if self._empty:
            self._loop.later(_LOOK_SECONDS, self._poll)
