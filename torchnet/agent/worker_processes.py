"""The processes of this worker: started together and stopped together, with nothing left behind.

All processes below the agent belong to it, including those that left their parents or sessions.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

from torchnet.agent import process_tree, rank_command
from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.agent.events import BACKLOG, Reporter
from torchnet.agent.process_tree import (
    catches,
    descendants,
    describe,
    in_groups,
    send,
    send_groups,
    signal_all,
)
from torchnet.agent.rank_logs import ERROR, RankLogs, hidden
from torchnet.agent.rank_process import Process
from torchnet.agent.spec import AgentSpec
from torchnet.linux import namespaces
from torchnet.text import listed_ranks

_LEFTOVER_SECONDS = 2.0  # for processes that the ranks started and left behind
_WAIT_SECONDS = 0.2  # between two looks for them while they are waited for
LEFTOVER_LIMIT = 300.0  # then a job whose ranks have succeeded ends, as a forgotten server never does
# At most this long before the grace period ends, the children of running ranks get SIGTERM.
CHILDREN_SECONDS = 10.0
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
        self._deadline = 0.0  # of a stop
        self._leftovers = False  # whether what ended ranks have left behind is waited for, and this was said
        self._finished: Callable[[], None] | None = None
        self._wait: Timer | None = None
        self._scratch: Path | None = None
        self._logs: RankLogs | None = None
        self._reaped: list[tuple[int, int, float]] = []
        self._inputs = rank_command.StandardInputs(
            loop, spec, lambda rank: reporter.send({"event": "stdin", "rank": rank})
        )
        self.processes: dict[int, Process] = {}
        process_tree.disown()
        if os.getpid() != 1:
            namespaces.adopt_orphans()
        # Record the time at once, even if the loop is busy: the first to end is the cause.
        loop.on_signal(signal.SIGCHLD, self._reap, at_once=self._collect)
        loop.every(_POLL_SECONDS, self._pressure)

    def start(self, attempt: int, run: str, environment: Callable[[int, str], dict[str, str]]) -> None:
        """Start all processes, each with the variables of ``environment(local rank, error file)``.

        Args:
            run: The name of the run's folder in the directory of the log files.

        Raises:
            OSError: the program cannot be executed.
        """
        self._stopping = False
        self.processes = {}
        head_start = _STORE_HEAD_START
        if self._spec.log_dir:
            if self._logs is not None:
                self._logs.close()
            self._logs = RankLogs(self._loop, self._spec, run, attempt, self._warn)
            # With a console of its own, each host shows where its files are: without --log-dir they differ.
            if not attempt and (self._spec.runtime == "agent" or not self._spec.node_rank):
                self._say(f"logs: {os.path.join(self._spec.log_dir, run)}", None)
        for local, rank in enumerate(self._spec.ranks):
            if rank:
                time.sleep(head_start)
                head_start = 0.0
            error_file = str(self._folder() / f"error-{attempt}-{local}.json")
            self.processes[rank] = Process(
                self._loop,
                rank,
                rank_command.argv(self._spec, local),
                with_site(environment(local, error_file)),
                emit=self._emitter(rank),
                raw=self._raw_emitter(rank) if self._spec.raw else None,
                exited=self._exited,
                stdin=self._inputs.open(rank),
                log=self._logs.writers(rank) if self._logs else {},
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

    def finish(self, done: Callable[[], None]) -> None:
        """Wait for what ended ranks have left behind, such as an upload, and call ``done``.

        A stop takes over. What still runs after LEFTOVER_LIMIT is ended in a local job, and goes on on hosts, as under
        torchrun. In a container, nothing but the agent's own end would end what never ends, so there it has
        _LEFTOVER_SECONDS.
        """
        local = self._spec.runtime == "local"
        if not local and (self._spec.runtime == "kubernetes" or os.getpid() == 1):
            self._reap()
            if os.getpid() == 1 and (left := descendants()):
                self._warn(f"ranks left processes behind, which end with this container: {describe(left)}")
            self.stop(done)
            return
        self._finished = done
        began = time.monotonic()

        def poll() -> None:
            self._reap()
            left, waited = descendants(), time.monotonic() - began
            if left and waited >= LEFTOVER_LIMIT:
                end = "end now" if local else "go on; what they print is lost"
                self._warn(f"ranks left processes behind, which {end}: {describe(left)}")
                if local:
                    self.end_leftovers()
                    return
            if not left or waited >= LEFTOVER_LIMIT:
                self._leftovers, self._finished = False, None
                self._release(keep=bool(left))
                done()
                return
            if waited >= _LEFTOVER_SECONDS and not self._leftovers:
                self._leftovers = True
                self._warn(
                    f"waiting up to {LEFTOVER_LIMIT:g} s for processes that ended ranks have left behind: "
                    f"{describe(left)}; Ctrl-C ends them"
                )
            self._wait = self._loop.later(_WAIT_SECONDS if self._leftovers else _POLL_SECONDS, poll)

        self._wait = self._loop.later(0, poll)

    def end_leftovers(self) -> bool:
        """End what :meth:`finish` waits for; its ``done`` is called. Return False if it does not wait."""
        if self._finished is None:
            return False
        self.stop(self._finished)
        return True

    def stop(self, done: Callable[[], None], number: int = signal.SIGTERM) -> None:
        """Send a signal to ranks, and to what they leave behind; after the grace period SIGKILL; then call ``done``.

        A rank's children get SIGTERM later: without its DataLoader workers it could not save a checkpoint. If it still
        runs near the end of the grace period, it may be waiting for them (a shell with a trap, a process that joins
        its children), so they get SIGTERM then. SIGINT goes to the ranks' process groups at once, as from a terminal,
        and so does any signal but SIGTERM to those of programs: a shell passes on none. Who then has had no SIGTERM
        gets it when its rank has ended, unless it handles the other signal: then it may be saving something.

        After several calls, only the last ``done`` is called.
        """
        self._stopping, self._leftovers, self._finished = True, False, None
        if self._wait is not None:
            self._wait.cancel()
        under_way, self._stopped = self._stopped is not None, done
        if under_way:
            return
        self.thaw()
        self._deadline = time.monotonic() + self._spec.grace
        children_at = self._deadline - min(CHILDREN_SECONDS, self._spec.grace / 2)
        shortened = False
        signalled: set[int] = set()  # who has had a signal
        terminated: set[int] = set()  # who has had SIGTERM
        terminate_at = children_at  # to those who handle the other signal, too
        groups = number == signal.SIGINT or (number != signal.SIGTERM and self._spec.entry == "program")

        def poll() -> None:
            nonlocal shortened, terminate_at
            self._reap()
            ranks = {process.pid for process in self.processes.values() if not process.ended}
            killed = any(process.signal == number for process in self.processes.values())
            if not ranks and not shortened and not killed:
                # Once the ranks have ended by themselves, leftover processes get less time. If the signal has killed a
                # rank, such as a shell, its child may still be saving a checkpoint.
                shortened = True
                terminate_at = min(terminate_at, time.monotonic() + _LEFTOVER_SECONDS)
                seconds = _LEFTOVER_SECONDS * (2 if groups else 1)
                self._deadline = min(self._deadline, time.monotonic() + seconds)
            if not descendants() and not self.running:
                assert self._stopped is not None
                last, self._stopped = self._stopped, None
                self._release()
                last()
                return
            if time.monotonic() >= self._deadline:
                signal_all(signal.SIGKILL)
            else:
                fresh = ranks - signalled
                signalled.update(fresh, in_groups(fresh) if groups else ())
                (send_groups if groups else send)(number, fresh)
                others = {*descendants(ranks if time.monotonic() < children_at else ())}
                send(number if killed else signal.SIGTERM, others - signalled)
                if number == signal.SIGTERM or not killed:
                    terminated.update(others - signalled)
                signalled.update(others)
                if number != signal.SIGTERM:
                    late = time.monotonic() >= terminate_at
                    silent = {pid for pid in others - terminated - ranks if late or not catches(pid, number)}
                    send(signal.SIGTERM, silent)
                    terminated.update(silent)
            self._loop.later(_POLL_SECONDS if time.monotonic() < self._deadline else 0.01, poll)

        self._loop.later(0, poll)

    def kill(self) -> None:
        """End a stop at once: its grace period is over."""
        self._deadline = 0.0
        signal_all(signal.SIGKILL)

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
        """Return a sentence on what this worker waits for, and not for its peers; "" if there is nothing.

        Ranks wait if their output is not read, and the worker for processes that ended ranks have left behind.
        """
        if self._leftovers:
            return f"{self._spec.name} waits for processes that ended ranks have left behind"
        if not self._paused:
            return ""
        ranks = [process.rank for process in self.processes.values() if process.blocked]
        wait = f"{listed_ranks(ranks)} {'wait' if len(ranks) > 1 else 'waits'} for"
        cause = f"--log-dir {self._spec.log_dir}" if self._log_pending else "the reader of the output"
        return f"{wait} {cause}" if ranks else ""

    def close(self) -> None:
        self._inputs.close()
        if self._logs is not None:
            self._logs.drain()
        if self._scratch is not None:
            for file in self._scratch.iterdir():
                file.unlink()
            self._scratch.rmdir()

    def _shows(self, rank: int) -> Callable[[str], bool]:
        """Return whether a stream of a rank is shown: always if its file cannot be written."""
        unseen, logs = hidden(self._spec, rank - self._spec.ranks[0]), self._logs
        return lambda stream: stream not in unseen or not (logs and logs.has(rank, stream))

    def _emitter(self, rank: int) -> Callable[[str, str, str], None]:
        shows, node = self._shows(rank), self._spec.node_rank

        def emit(stream: str, text: str, end: str) -> None:
            if shows(stream):
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

    def _raw_emitter(self, rank: int) -> Callable[[str, bytes], None]:
        shows, node = self._shows(rank), self._spec.node_rank

        def emit(stream: str, data: bytes) -> None:
            if shows(stream):
                text = b64encode(data).decode()
                self._reporter.send(
                    {"event": "raw", "node": node, "rank": rank, "stream": stream, "data": text}
                )

        return emit

    def _warn(self, text: str) -> None:
        self._say(text, self._spec.node_rank, "warning")

    def _say(self, text: str, node: int | None, level: str = "info") -> None:
        self._reporter.send({"event": "notice", "node": node, "level": level, "text": text})

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

    def _release(self, *, keep: bool = False) -> None:
        """Take what is left in the pipes that left processes have held; ``keep``: they hold them, and need a reader."""
        pipes = [os.dup(file) for one in self.processes.values() for file in one.outputs] if keep else []
        for process in self.processes.values():
            process.release()
        if pipes:
            from torchnet.linux.pipe_reader import read_on  # not in pods

            read_on(pipes)

    def _exited(self, process: Process) -> None:
        self._inputs.look()
        error = process.error() if process.code else b""
        if error:
            if self._logs is not None:
                self._logs.writers(process.rank)[ERROR](error)
            text = error.decode(errors="replace")
            self._reporter.send({"event": "error_file", "rank": process.rank, "data": text})
        if not self._stopping:
            self._ended(process)

    def _pressure(self) -> None:
        """Stop reading output while its reader or the file system of the logs does not keep up."""
        slow = self._reporter.pending > BACKLOG or self._log_pending
        if slow != self._paused:
            self._paused = slow
            # Ended ones, too: what they left behind writes to their pipes.
            for process in self.processes.values():
                process.pause() if slow else process.resume()


def with_site(env: dict[str, str]) -> dict[str, str]:
    """Return ``env`` with the ``sitecustomize`` folder (perhaps in the zip) first on PYTHONPATH."""
    site = os.path.join(os.path.dirname(__file__), "sitecustomize")
    return {**env, "PYTHONPATH": os.pathsep.join([site, *filter(None, [env.get("PYTHONPATH", "")])])}
