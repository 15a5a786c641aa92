"""The logs of a run's pods: which are followed, and how their lines reach the console, the files and the receipt.

Equal messages of several agents are shown once.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TextIO

from torchnet import rlimits
from torchnet.agent.events import BACKLOG
from torchnet.console.console import Console
from torchnet.constants import PREPARE, WORKER
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.run.log_parser import Event, event
from torchnet.k8s.run.pod_logs import READERS, LogFollower, LogReaders
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerStatus

ALL = 16  # workers up to which all are followed
_WAITING = 20_000  # lines that may wait for the console; then the followers wait
_TAIL = 200  # lines of a failing worker that was not followed before


def allow(nnodes: int, nproc: int, ranks: Collection[int], *, everybody: bool, files: bool = False) -> None:
    """Raise the limit of open files to what following these takes; ``files``: with a file for each rank.

    Raises:
        UsageError: more than the machine allows.
    """
    some = len({rank // nproc for rank in ranks} | {0}) if ranks else ALL
    followed = nnodes if everybody or files else min(nnodes, some)
    count = READERS + followed + (nnodes * nproc if files else 0)
    what = f"the logs of {followed} workers" + (f" in {nnodes * nproc} files" if files else "")
    rlimits.allow(count, what, "fewer workers: --ranks LIST" + (" without --log-dir" if files else ""))


class LogSelection:
    """Followers by pod and container. ``tail``: so many of the lines that were there before (None: all)."""

    def __init__(
        self,
        door: ApiClient,
        facts: RunInfo,
        *,
        ranks: Collection[int] = (),
        everybody: bool = False,
        tail: int | None = None,
        follow: bool = True,
    ) -> None:
        self._door, self._facts = door, facts
        self._nodes = {rank // facts.nproc_per_node for rank in ranks}
        self._everybody = everybody
        self._tail, self._follow = tail, follow
        self._queue: queue.Queue[Event] = queue.Queue(_WAITING)
        self._remarks: deque[Event] = deque()  # of the thread that takes, which must not wait for itself
        self._followers: dict[tuple[str, str], LogFollower] = {}
        self._readers = LogReaders()

    def update(self, workers: Mapping[int, WorkerStatus]) -> None:
        """Start followers where there is something to follow, and tell those whose container has ended."""
        failing = self._failing(workers)
        for rank, one in workers.items():
            failed = rank in failing
            if rank == 0 or (failed and not one.started):
                # Rank 0's preparation speaks for all; another's is of interest when it fails.
                begun = one.stage in ("preparing", "prepared") or one.started or one.ended is not None
                self._follow_one(one, PREPARE, begun, ended=one.started or one.ended is not None)
            wanted = self._wanted(rank) or failed
            tail = self._tail if self._wanted(rank) or self._tail is not None else _TAIL
            self._follow_one(one, WORKER, wanted and one.started, ended=one.ended is not None, tail=tail)

    def _failing(self, workers: Mapping[int, WorkerStatus]) -> set[int]:
        """The node ranks whose ends are of interest by themselves.

        Every agent ends with the code that all have agreed on: of many workers only the one that their messages name
        has failed, and whoever left no such message.
        """
        ended = {rank: one.ended for rank, one in workers.items() if one.ended is not None and one.ended.code}
        if self._facts.nnodes <= ALL:
            return set(ended)
        silent: set[int] = set()
        named: set[str | None] = set()
        for rank, end in ended.items():
            failure = end.message.failure if end.message is not None else None
            if failure is None:
                silent.add(rank)
            elif failure.rank is not None:
                named.add(self._facts.node(failure.rank // self._facts.nproc_per_node))
            else:
                named.add(failure.node)
        return silent | {rank for rank in ended if self._facts.node(rank) in named}

    def _wanted(self, rank: int) -> bool:
        if self._everybody:
            return True
        if self._nodes:
            return (
                rank in self._nodes or rank == 0
            )  # rank 0 for the receipt; the console leaves out its output
        return rank == 0 or self._facts.nnodes <= ALL

    def _follow_one(
        self, one: WorkerStatus, container: str, begun: bool, *, ended: bool, tail: int | None = None
    ) -> None:
        key = one.uid, container
        if begun and key not in self._followers:
            name = self._facts.node(one.rank)
            put = lambda line: self._queue.put({**event(line.text, one.rank, name), "uid": one.uid})  # noqa: E731
            follower = LogFollower(
                self._door,
                self._facts.namespace,
                one.pod,
                container,
                line=put,
                said=lambda text: self._queue.put(_remark(text)),
                follow=self._follow,
                tail=self._tail if container == PREPARE else tail,
            )
            self._followers[key] = follower
            if ended:
                follower.ended()
            try:
                follower.start(self._readers)
            except RuntimeError as error:
                self._remarks.append(_remark(f"the log of {one.pod} cannot be read: {error}"))
        elif ended and key in self._followers:
            self._followers[key].ended()

    def take(self) -> Event | None:
        """The next event, or None if there is none now."""
        if self._remarks:
            return self._remarks.popleft()
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    @property
    def busy(self) -> bool:
        """Whether more may come."""
        waits = bool(self._remarks) or not self._queue.empty()
        return waits or any(one.busy for one in self._followers.values())

    def release(self) -> None:
        """No line may come any more: followers that wait for an end are told."""
        for follower in self._followers.values():
            follower.ended()


def _remark(text: str) -> Event:
    return {"event": "notice", "node": None, "level": "warning", "text": text}


class LogFiles:
    """``rank-N.log`` in a folder on the launcher's side; a file that cannot be written is told once and given up."""

    def __init__(self, folder: str | None) -> None:
        self._folder = Path(folder) if folder else None
        self._files: dict[int, TextIO] = {}
        self.problem = ""

    def write(self, rank: int, text: str) -> None:
        if self._folder is None:
            return
        try:
            if rank not in self._files:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._files[rank] = open(  # noqa: SIM115  # closed by close()
                    self._folder / f"rank-{rank}.log", "w", encoding="utf-8", errors="backslashreplace"
                )
            self._files[rank].write(f"{text}\n")
            self._files[rank].flush()
        except OSError as error:
            self.problem = f"--log-dir {self._folder}: {error.strerror}; the logs are not kept"
            self._folder = None

    def close(self) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError:
                pass


_LINES_AT_ONCE = 2000
_REMARKS = 1000  # different notices and phases that are remembered


class LogDispatcher:
    """``next_event`` gives what has come, None where that is all.

    ``receipts``: by the pod's UID, as of several attempts the last one's counts.
    """

    def __init__(self, console: Console, next_event: Callable[[], Event | None], files: LogFiles) -> None:
        self.receipts: dict[str, object] = {}
        self._console, self._next, self._files = console, next_event, files
        self._remarks: set[str] = set()

    def take(self, *, all_of_it: bool) -> None:
        """What has come, as far as one turn of the launcher's loop may last.

        Who reads slowly slows down the followers, and the job as little as a log does: unless ``all_of_it``, nothing
        is taken while the console has more than enough to write.
        """
        for _ in range(_LINES_AT_ONCE):
            if self._console.pending > BACKLOG and not all_of_it:
                return
            event = self._next()
            if event is None:
                return
            self._event(event)

    def said(self, text: str) -> bool:
        """Whether an agent has said this already."""
        return text in self._remarks

    def next_attempt(self) -> None:
        """What the agents of the next attempt say is news again, even in the same words."""
        self._remarks.clear()

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _event(self, event: Event) -> None:
        kind = event["event"]
        if kind == "receipt":
            self.receipts[event["uid"]] = event["receipt"]
        elif kind == "notice":
            text = str(event["text"])
            # Indented lines belong to the one before, which may be another one next time.
            if self._first(text) or text.startswith("  "):
                self._console.event(event)
        elif kind == "phase":
            # Both containers join; what the second one only repeats is no news.
            if self._first(f"{event['node']} {event['phase']}: {event['text']}"):
                self._console.event(event)
        elif kind == "output":
            self._output(event)
        elif kind not in ("worker_receipt", "time"):
            self._console.event(event)

    def _first(self, text: str) -> bool:
        if text in self._remarks:
            return False
        if len(self._remarks) < _REMARKS:
            self._remarks.add(text)
        return True

    def _output(self, event: Event) -> None:
        self._files.write(event["rank"], event["data"])
        if self._files.problem:
            text, self._files.problem = self._files.problem, ""
            self._console.notice(text, "warning")
        self._console.event(event)
