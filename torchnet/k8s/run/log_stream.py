"""The logs of a run's pods: which are followed, and how their lines reach the console, the files and the receipt.

Equal messages from several agents are shown once.
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
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.run.log_parser import OWN, Event, event
from torchnet.k8s.run.pod_logs import READERS, WHOLE, LogExtent, LogFollower, LogReaders
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerStatus

ALL = 16  # up to this many workers, all are followed
MOST_RANKS = 32  # up to this many ranks' output is followed unless it is asked for
_WAITING = 20_000  # lines queued for the console; then the followers block
_TAIL = 200  # lines of a failed worker that was not followed before


def followed_nodes(nnodes: int, nproc: int, ranks: Collection[int], *, everybody: bool) -> set[int]:
    """Return the node ranks of the workers whose logs are followed from the start.

    Each is a connection to the API server and to a kubelet, and the console cannot show a thousand ranks.

    Args:
        ranks: the ranks that the user has asked for; their workers are followed, however many they are, and rank 0's,
            whose log holds the receipt.
        everybody: follow workers of up to 32 ranks; False follows rank 0's alone in a run of more than 16 workers.
    """
    asked = {rank // nproc for rank in ranks} | {0}
    if ranks and not everybody:
        return asked
    some = range(min(nnodes, max(1, MOST_RANKS // nproc))) if everybody or nnodes <= ALL else ()
    return asked | set(some)


def followed_text(nnodes: int, nproc: int, ranks: Collection[int], *, everybody: bool) -> str:
    """Return a line about the ranks whose output is followed; "" if the output of all is, or of those asked for."""
    nodes = followed_nodes(nnodes, nproc, (), everybody=everybody)
    if (ranks and not everybody) or len(nodes) == nnodes:
        return ""
    last = len(nodes) * nproc - 1  # they are the first ones
    which = f"ranks 0 to {last}" if last else "rank 0"
    return f"following the output of {which} of {nnodes * nproc} ranks; --ranks LIST follows others"


def allow(nnodes: int, nproc: int, ranks: Collection[int], *, everybody: bool, files: bool = False) -> None:
    """Raise the limit of open files (RLIMIT_NOFILE) to what following these logs needs.

    Args:
        ranks: the selected ranks; empty for the default selection.
        everybody: not only rank 0's worker is followed in a large run.
        files: the same, and each followed rank's output goes to a file.

    Raises:
        UsageError: the machine allows fewer open files.
    """
    followed = len(followed_nodes(nnodes, nproc, ranks, everybody=everybody or files))
    count = READERS + followed + (followed * nproc if files else 0)
    what = f"the logs of {followed} workers" + (f" in {followed * nproc} files" if files else "")
    rlimits.allow(count, what, "fewer workers: --ranks LIST" + (" without --log-dir" if files else ""))


class LogSelection:
    """Starts and holds the followers of a run's logs, one for each pod and container.

    Args:
        ranks: global ranks whose workers are followed besides rank 0's. If empty: those of `followed_nodes`. Failed
            workers are followed in any case.
        everybody: also follow other workers, up to 32 ranks; without ``follow``, all of them.
        extent: which of the lines that a log holds already are read.
        container: ``prepare`` or ``worker``: only this one's logs, and of ``prepare`` only those of the workers that
            ``ranks`` and ``everybody`` select. "" for both: of ``prepare`` rank 0's, which stands for all, and those
            that failed.
        follow: False reads only what the logs hold now.
    """

    def __init__(
        self,
        client: ApiClient,
        info: RunInfo,
        *,
        ranks: Collection[int] = (),
        everybody: bool = False,
        extent: LogExtent = WHOLE,
        container: str = "",
        follow: bool = True,
    ) -> None:
        self._client, self._info = client, info
        self._everybody = everybody and not follow
        self._asked = {rank // info.nproc_per_node for rank in ranks}
        self._nodes = followed_nodes(info.nnodes, info.nproc_per_node, ranks, everybody=everybody)
        self._extent, self._container, self._follow = extent, container, follow
        self._queue: queue.Queue[Event] = queue.Queue(_WAITING)
        self._remarks: deque[Event] = deque()  # the consumer's own: it must not block on its own queue
        self._followers: dict[tuple[str, str], LogFollower] = {}
        self._readers = LogReaders()

    def update(self, workers: Mapping[int, WorkerStatus]) -> None:
        """Start followers for new logs, and notify those whose container has ended."""
        failing = self._failing(workers)
        for rank, one in workers.items():
            failed = rank in failing
            if self._is_preparation_read(rank, failed=failed and not one.joins):
                exists = one.stage in ("preparing", "prepared") or one.joins or one.ended is not None
                self._follow_one(one, PREPARE, exists, ended=one.joins or one.ended is not None)
            if self._container != PREPARE:
                wanted = self._is_selected(rank) or failed
                is_whole = self._is_selected(rank) or self._extent != WHOLE
                extent = self._extent if is_whole else LogExtent(tail=_TAIL)
                self._follow_one(
                    one, WORKER, wanted and one.joins, ended=one.ended is not None, extent=extent
                )

    def _is_preparation_read(self, rank: int, *, failed: bool) -> bool:
        if self._container == PREPARE:
            return self._everybody or rank in (self._asked or self._nodes)
        return self._container != WORKER and (rank == 0 or failed)

    def _failing(self, workers: Mapping[int, WorkerStatus]) -> set[int]:
        """The node ranks of the workers that have failed.

        All agents exit with the code that they have agreed on. In a run of more than 16 workers, those count as failed
        that the termination messages name, or whose own message reports no failure.
        """
        ended = {rank: one.ended for rank, one in workers.items() if one.ended is not None and one.ended.code}
        if self._info.nnodes <= ALL:
            return set(ended)
        silent: set[int] = set()
        named: set[str | None] = set()
        for rank, end in ended.items():
            failure = end.message.failure if end.message is not None else None
            if failure is None:
                silent.add(rank)
            elif failure.rank is not None:
                named.add(self._info.node(failure.rank // self._info.nproc_per_node))
            else:
                named.add(failure.node)
        return silent | {rank for rank in ended if self._info.node(rank) in named}

    def _is_selected(self, rank: int) -> bool:
        return self._everybody or rank in self._nodes

    def _follow_one(
        self,
        one: WorkerStatus,
        container: str,
        exists: bool,
        *,
        ended: bool,
        extent: LogExtent | None = None,
    ) -> None:
        key = one.uid, container
        if exists and key not in self._followers:
            name = self._info.node(one.rank)
            put = lambda line: self._queue.put({**self._event(line.text, one.rank, name), "uid": one.uid})  # noqa: E731
            follower = LogFollower(
                self._client,
                self._info.namespace,
                one.pod,
                container,
                line=put,
                warn=lambda text: self._queue.put(_remark(text)),
                follow=self._follow,
                extent=extent or self._extent,
            )
            self._followers[key] = follower
            if ended:
                follower.ended()
            try:
                follower.start(self._readers)
            except RuntimeError as error:
                self._remarks.append(_remark(f"cannot read the log of {one.pod}: {error}"))
        elif ended and key in self._followers:
            self._followers[key].ended()

    def _event(self, text: str, rank: int, name: str) -> Event:
        found = event(text, rank, name)
        if self._container != PREPARE or found["event"] in ("output", "receipt", "worker_receipt"):
            return found
        # As it is: the console would show the phases of one worker only, and equal notices once.
        shown = f"{name}: {text.removeprefix(OWN)}"
        return {"event": "notice", "node": None, "level": "info", "text": shown, "repeats": True}

    def take(self) -> Event | None:
        """The next event, or None if none is waiting."""
        if self._remarks:
            return self._remarks.popleft()
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    @property
    def busy(self) -> bool:
        """Whether more events may come."""
        waits = bool(self._remarks) or not self._queue.empty()
        return waits or any(one.busy for one in self._followers.values())

    def release(self) -> None:
        """Notify all followers that their containers have ended, so that none waits for more lines."""
        for follower in self._followers.values():
            follower.ended()


def _remark(text: str) -> Event:
    return {"event": "notice", "node": None, "level": "warning", "text": text}


class LogFiles:
    """Files ``rank-N.log`` in a folder on the launcher's machine, the run's. Another run of its name adds to them.

    After the first write error, ``problem`` holds its text, and nothing more is written.
    """

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
                    self._folder / f"rank-{rank}.log", "a", encoding="utf-8", errors="backslashreplace"
                )
            self._files[rank].write(f"{text}\n")
            self._files[rank].flush()
        except OSError as error:
            self.problem = f"--log-dir {self._folder}: {error.strerror}; the logs are not saved"
            self._folder = None

    def close(self) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError:
                pass


_LINES_AT_ONCE = 2000
_REMARKS = 1000  # distinct notices and phases that are remembered


class LogDispatcher:
    """Passes log events on to the console and the files, and collects the receipts.

    Args:
        next_event: returns the next event, or None if none is waiting.

    Attributes:
        receipts: by pod UID, because each attempt has its own and the last one's counts.
    """

    def __init__(self, console: Console, next_event: Callable[[], Event | None], files: LogFiles) -> None:
        self.receipts: dict[str, object] = {}
        self._console, self._next, self._files = console, next_event, files
        self._remarks: set[str] = set()

    def take(self, *, all_of_it: bool) -> None:
        """Process waiting events, up to 2,000 per call.

        Unless ``all_of_it``, nothing is processed while the console has more than ``BACKLOG`` bytes pending. A slow
        reader of the console therefore slows down the followers, but not the job.
        """
        for _ in range(_LINES_AT_ONCE):
            if self._console.pending > BACKLOG and not all_of_it:
                return
            event = self._next()
            if event is None:
                return
            self._event(event)

    def was_shown(self, text: str) -> bool:
        """Whether this text has been shown already as an agent's notice."""
        return text in self._remarks

    def next_attempt(self) -> None:
        """Show the notices of the next attempt's agents even if they repeat earlier ones."""
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
            # An indented line continues the line before it, which may be a different one each time.
            if event.get("repeats") or self._first(text) or text.startswith("  "):
                self._console.event(event)
        elif kind == "phase":
            # The pod that replaces rank 0's reports the same phases; a repeated state is shown once.
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
