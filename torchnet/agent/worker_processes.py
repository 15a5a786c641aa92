"""The processes of this worker: started together and stopped together, with nothing left behind.

All processes below the agent belong to it, including those that left their parents or sessions.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from torchnet.agent import output_writer
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import BACKLOG, Reporter
from torchnet.agent.rank_logs import RankLogs
from torchnet.agent.rank_process import Process
from torchnet.agent.spec import AgentSpec
from torchnet.linux import namespaces
from torchnet.text import listed_ranks


def descendants(without: Collection[int] = ()) -> list[int]:
    """Return all PIDs below this process, parents first, except ``without`` and the PIDs below them.

    The processes that write the output are not included.

    The agent is the parent of every orphan, as PID 1 of its namespace or by PR_SET_CHILD_SUBREAPER, so no process can
    leave the tree.
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
        if pid not in without and pid not in output_writer.pids:
            found.append(pid)
            queue += parents.get(pid, ())
    return found


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to those processes that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


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


def _parent(pid: int) -> int | None:
    """Return the parent of a running process; None for a zombie.

    A process whose first thread has ended is in the state of a zombie, too, while its other threads run.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        state, parent, threads = fields[0], fields[1], int(fields[17])
    except (OSError, ValueError):
        return None
    return None if state == b"Z" and threads <= 1 else int(parent)


_LEFTOVER_SECONDS = 2.0  # for processes that the ranks started and left behind
CHILDREN_SECONDS = (
    10.0  # at most this long before the grace period ends: SIGTERM to the children of running ranks
)
# Rank 0 listens with PyTorch's store. A rank that connects before it is refused, and PyTorch tries again only after
# 0.25 to 0.75 s (ExponentialBackoffWithJitter in c10d/Backoff.hpp). Ranks that start together import torch in times
# that differ by some 0.01 s, so without a head start this happened in half of the starts that were measured.
_STORE_HEAD_START = 0.03
_POLL_SECONDS = 0.05


class WorkerProcesses:
    """The processes of one worker, over all attempts.

    ``ended(process)`` is called for each that ends by itself; :meth:`stop` ends the others.
    """

    def __init__(
        self, loop: EventLoop, spec: AgentSpec, reporter: Reporter, ended: Callable[[Process], None]
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._reporter = reporter
        self._ended = ended
        self._stopping = False
        self._paused = False
        self._stopped: Callable[[], None] | None = None
        self._scratch: Path | None = None
        self._logs: RankLogs | None = None
        self._reaped: list[tuple[int, int, float]] = []
        self.processes: dict[int, Process] = {}
        if os.getpid() != 1:
            namespaces.adopt_orphans()
        # Record the time at once, even if the loop is busy: the first to end is the cause.
        loop.on_signal(signal.SIGCHLD, self._reap, at_once=self._collect)
        loop.every(_POLL_SECONDS, self._pressure)

    def start(self, attempt: int, environment: Callable[[int, str], dict[str, str]]) -> None:
        """Start all processes, each with the variables of ``environment(local rank, error file)``.

        Raises:
            OSError: the program cannot be executed.
        """
        self._stopping = False
        self.processes = {}
        head_start = _STORE_HEAD_START
        if self._spec.log_dir:
            if self._logs is not None:
                self._logs.close()
            self._logs = RankLogs(self._loop, self._spec.log_dir, self._spec.ranks, attempt, self._warn)
        for local, rank in enumerate(self._spec.ranks):
            if rank:
                time.sleep(head_start)
                head_start = 0.0
            error_file = str(self._folder() / f"error-{attempt}-{local}.json")
            self.processes[rank] = Process(
                self._loop,
                rank,
                self._argv(),
                with_site(environment(local, error_file)),
                emit=self._emitter(rank),
                exited=self._exited,
                stdin=sys.__stdin__
                if rank == self._spec.stdin_rank and sys.__stdin__
                else subprocess.DEVNULL,
                log=self._logs.writer(rank) if self._logs else None,
                error_file=error_file,
            )
            if self._paused:
                self.processes[rank].pause()
        started = {"ranks": list(self.processes), "pids": [p.pid for p in self.processes.values()]}
        self._reporter.send({"event": "started", "node": self._spec.node_rank, "attempt": attempt, **started})

    @property
    def running(self) -> int:
        """The number of processes that have not ended, or whose output has not been read."""
        return sum(1 for process in self.processes.values() if not process.finished)

    def codes(self) -> dict[str, int]:
        """Return the exit codes of ended processes, by rank."""
        return {str(rank): p.code for rank, p in self.processes.items() if p.code is not None}

    def stop(self, done: Callable[[], None]) -> None:
        """Send SIGTERM to ranks, and to what they leave behind; after the grace period SIGKILL; then call ``done``.

        A rank's children get SIGTERM later: without its DataLoader workers it could not save a checkpoint. If it still
        runs near the end of the grace period, it may be waiting for them (a shell with a trap, a process that joins
        its children), so they get SIGTERM then. After several calls, only the last ``done`` is called.
        """
        self._stopping = True
        under_way, self._stopped = self._stopped is not None, done
        if under_way:
            return
        self.thaw()
        deadline = time.monotonic() + self._spec.grace
        children_at = deadline - min(CHILDREN_SECONDS, self._spec.grace / 2)
        shortened = False
        signalled: set[int] = set()

        def poll() -> None:
            nonlocal deadline, shortened
            self._reap()
            ranks = {process.pid for process in self.processes.values() if not process.ended}
            if not ranks and not shortened and not self._terminated():
                # Once the ranks have ended by themselves, leftover processes get less time.
                shortened = True
                deadline = min(deadline, time.monotonic() + _LEFTOVER_SECONDS)
            if not descendants() and not self.running:
                assert self._stopped is not None
                last, self._stopped = self._stopped, None
                last()
                return
            if time.monotonic() >= deadline:
                signal_all(signal.SIGKILL)
            else:
                spared = ranks if time.monotonic() < children_at else ()
                fresh = ranks.union(descendants(spared)) - signalled
                signalled.update(fresh)
                send(signal.SIGTERM, fresh)
            self._loop.later(_POLL_SECONDS if time.monotonic() < deadline else 0.01, poll)

        self._loop.later(0, poll)

    def _terminated(self) -> bool:
        """Return whether SIGTERM killed a rank, such as a shell, whose child may still be saving a checkpoint."""
        return any(process.signal == signal.SIGTERM for process in self.processes.values())

    def freeze(self) -> None:
        """Stop all processes until :meth:`thaw` (Ctrl-Z)."""
        signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        signal_all(signal.SIGCONT)

    def keep(self, name: str, data: bytes) -> str:
        """Write a file for the processes, and return its path."""
        path = self._folder() / name
        path.write_bytes(data)
        return str(path)

    def blocked(self) -> str:
        """Return a sentence on the ranks that wait because their output is not read; "" if there are none."""
        if not self._paused:
            return ""
        ranks = [process.rank for process in self.processes.values() if process.blocked]
        wait = f"{listed_ranks(ranks)} {'wait' if len(ranks) > 1 else 'waits'} for"
        cause = f"--log-dir {self._spec.log_dir}" if self._log_pending else "the reader of the output"
        return f"{wait} {cause}" if ranks else ""

    def close(self) -> None:
        if self._logs is not None:
            self._logs.drain()
        if self._scratch is not None:
            for file in self._scratch.iterdir():
                file.unlink()
            self._scratch.rmdir()

    def _argv(self) -> list[str]:
        if self._spec.entry == "program":
            return list(self._spec.command)
        name, *arguments = self._spec.command
        if self._spec.entry == "module":
            return [self._spec.python, "-u", "-m", name, *arguments]
        path = f"./{name}" if name.startswith("-") else name  # Python would parse it as an option
        return [self._spec.python, "-u", path, *arguments]

    def _emitter(self, rank: int) -> Callable[[str, str, str], None]:
        spec, logs = self._spec, self._logs
        # As under torchrun, tee shows a stream even if it is redirected. Without a log file, all are shown.
        hidden = _streams(spec.redirects, rank, spec) - _streams(spec.tee, rank, spec) if logs else set()
        node = self._spec.node_rank

        def emit(stream: str, text: str, end: str) -> None:
            if stream not in hidden or (logs and not logs.has(rank)):
                event = {
                    "event": "output",
                    "node": node,
                    "rank": rank,
                    "stream": stream,
                    "data": text,
                    "end": end,
                }
                self._reporter.send(event)

        return emit

    def _warn(self, text: str) -> None:
        self._reporter.send(
            {"event": "notice", "node": self._spec.node_rank, "level": "warning", "text": text}
        )

    @property
    def _log_pending(self) -> bool:
        return self._logs is not None and self._logs.pending > BACKLOG

    def _folder(self) -> Path:
        if self._scratch is None:
            # In memory: in a node or pod it disappears with it, however that ends.
            place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            self._scratch = Path(tempfile.mkdtemp(prefix="torchnet-", dir=place))
        return self._scratch

    def _collect(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                self._reaped.append((pid, status, time.time()))

    def _reap(self) -> None:
        self._collect()
        by_pid = {process.pid: process for process in self.processes.values()}
        while self._reaped:
            pid, status, at = self._reaped.pop(0)
            if pid in by_pid:
                by_pid[pid].reaped(status, at)

    def _exited(self, process: Process) -> None:
        if not self._stopping:
            self._ended(process)

    def _pressure(self) -> None:
        """Stop reading output while its reader or the file system of the logs does not keep up."""
        slow = self._reporter.pending > BACKLOG or self._log_pending
        if slow != self._paused:
            self._paused = slow
            for process in self.processes.values():
                if not process.finished:
                    process.pause() if slow else process.resume()


def with_site(env: dict[str, str]) -> dict[str, str]:
    """Return ``env`` with the ``sitecustomize`` folder (perhaps in the zip) first on PYTHONPATH."""
    site = os.path.join(os.path.dirname(__file__), "sitecustomize")
    return {**env, "PYTHONPATH": os.pathsep.join([site, *filter(None, [env.get("PYTHONPATH", "")])])}


def _streams(value: str, rank: int, spec: AgentSpec) -> set[str]:
    """Parse torchrun's notation: "0" to "3" for all ranks of a worker, or "0:1,1:3" by local rank."""
    bits = 0
    if ":" in value:
        for part in value.split(","):
            local, _, stream = part.partition(":")
            if int(local) == rank - spec.ranks[0]:
                bits = int(stream)
    else:
        bits = int(value or 0)
    return {name for bit, name in ((1, "stdout"), (2, "stderr")) if bits & bit}
