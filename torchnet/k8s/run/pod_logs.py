"""Container logs over the API: a thread and a connection for each growing log; complete logs share threads.

Threads, not asyncio: the official client is synchronous, and an event loop would need a second client with its own
cluster configuration. Usually, up to 32 ranks are followed (`torchnet.k8s.run.log_stream`), and with ``--ranks`` as
many as it names, each by a thread that is blocked in one read. Complete logs are read by up to :data:`READERS` threads
in turn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torchnet.errors import ClusterError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.backoff import Backoff
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.client.watch import internal_error, lines
from torchnet.k8s.run.log_parser import LONGEST, Resume, StampedLine, stamped

_SILENCE = 600.0  # seconds without a line before the log is opened again: the connection may be dead
RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 30.0  # doubled while a stream brings no line
READERS = 32

Line = Callable[[StampedLine], None]


@dataclass(frozen=True)
class LogExtent:
    """Which of the lines that a log holds already are read.

    Attributes:
        tail: Only so many lines at its end; None for no limit.
        since: Only those of the last so many seconds; None for no limit.
    """

    tail: int | None = None
    since: int | None = None

    def query(self) -> dict[str, object]:
        """Return it as query parameters of the API."""
        wanted = {"tailLines": self.tail, "sinceSeconds": self.since}
        return {name: value for name, value in wanted.items() if value is not None}


WHOLE = LogExtent()


class LogReaders:
    """Runs queued work in up to :data:`READERS` threads, which end when no work is left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: deque[Callable[[], None]] = deque()
        self._running = 0

    def take(self, work: Callable[[], None]) -> None:
        """Queue ``work``, which must not raise.

        Raises:
            RuntimeError: the machine allows no more threads, and no thread is running that could do the work.
        """
        with self._lock:
            self._left.append(work)
            if self._running >= READERS:
                return
            self._running += 1
        try:
            threading.Thread(target=self._work, name="reader", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._running -= 1
                if self._running:
                    return
                self._left.remove(work)
            raise

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._left:
                    self._running -= 1
                    return
                work = self._left.popleft()
            work()


class LogFollower:
    """Follows the log of one container until the container has ended and its log is read to the end.

    Args:
        line: receives each line once, in order, in the follower's thread.
        warn: receives warnings (a gap, an error), in the follower's thread.
        follow: False reads only what the log holds now.
        extent: which of the lines that the log holds already are read.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        pod: str,
        container: str,
        *,
        line: Line,
        warn: Callable[[str], None],
        follow: bool = True,
        extent: LogExtent = WHOLE,
    ) -> None:
        self._client, self._namespace, self._pod, self._container = client, namespace, pod, container
        self._line, self._warn, self._follow = line, warn, follow
        self._extent = extent
        self._resume = Resume()
        self._is_new = False  # whether the present stream has brought a line
        self._ended = threading.Event()
        self._done = threading.Event()

    def start(self, readers: LogReaders) -> None:
        """Start reading: in one of the ``readers`` if the log is not to be followed, else in a thread of its own.

        Raises:
            RuntimeError: the machine allows no more threads.
        """
        try:
            if self._ended.is_set() or not self._follow:
                readers.take(self._work)
            else:
                threading.Thread(target=self._work, name=f"log of {self._pod}", daemon=True).start()
        except RuntimeError:
            self._done.set()
            raise

    def ended(self) -> None:
        """Note that the container has ended: its log is complete."""
        self._ended.set()

    @property
    def busy(self) -> bool:
        """Whether more lines may come."""
        return not self._done.is_set()

    def _work(self) -> None:
        backoff = Backoff(RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        try:
            while not self._client.stop.is_set():
                self._is_new = False
                last = self._ended.is_set() or not self._follow
                whole = self._read(follow=not last)
                if (last and whole) or self._client.stop.is_set():
                    return
                if self._is_new:
                    backoff.reset()
                # If the stream ended normally, the end of the container is about to be reported.
                self._ended.wait(backoff.next() if whole else 0.2)
        except ApiRefusal as error:
            # 404: the pod and its log have been deleted. 400: no such container, or it has never started.
            if error.status not in (400, 404):
                self._warn(f"cannot read the log of {self._pod}: {error}")
        except ClusterError as error:
            self._warn(f"lost the log of {self._pod}: {error}")
        except Exception as error:
            self._warn(str(internal_error(f"the follower of {self._pod}'s log", error)))
        finally:
            self._done.set()

    def _read(self, *, follow: bool) -> bool:
        """Read until the stream ends; return whether it ended normally."""
        query: dict[str, object] = {"container": self._container, "timestamps": "true"}
        if follow:
            query["follow"] = "true"
        if self._resume.since:
            query["sinceTime"] = self._resume.since
        else:
            query |= self._extent.query()
        self._resume.again()
        path = POD.path(self._namespace, self._pod, "log")
        call = POD.call("get", self._namespace, self._pod, "log")
        try:
            response = self._client.stream(path, call, query=query, silence=_SILENCE, patience=120.0)
            try:
                for raw in lines(response, LONGEST):
                    self._take(stamped(raw))
            finally:
                response.close()
        except ApiUnreachable:
            if not follow:
                raise
            return False
        return True

    def _take(self, line: StampedLine) -> None:
        if self._resume.take(line):
            if self._resume.gap:
                first, last = self._resume.gap
                self._warn(
                    f"the log of {self._pod} is incomplete: log rotation removed the lines between {first} and {last}"
                )
            self._is_new = True
            self._line(line)
