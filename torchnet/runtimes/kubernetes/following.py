"""Whose logs are followed, and what becomes of their lines: events for the console, files, the receipt."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TextIO

from torchnet.names import PREPARE, WORKER
from torchnet.runtimes import descriptors
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.lines import Event, event
from torchnet.runtimes.kubernetes.logs import READERS, Follower, Readers
from torchnet.runtimes.kubernetes.pods import Worker

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
    descriptors.allow(count, what, "fewer workers: --ranks LIST" + (" without --log-dir" if files else ""))


class Following:
    """Followers by pod and container. ``tail``: so many of the lines that were there before (None: all)."""

    def __init__(
        self,
        door: Door,
        facts: Facts,
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
        self._followers: dict[tuple[str, str], Follower] = {}
        self._readers = Readers()

    def update(self, workers: Mapping[int, Worker]) -> None:
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

    def _failing(self, workers: Mapping[int, Worker]) -> set[int]:
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
        self, one: Worker, container: str, begun: bool, *, ended: bool, tail: int | None = None
    ) -> None:
        key = one.uid, container
        if begun and key not in self._followers:
            name = self._facts.node(one.rank)
            put = lambda line: self._queue.put({**event(line.text, one.rank, name), "uid": one.uid})  # noqa: E731
            follower = Follower(
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


class Files:
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
