"""Containers' logs over the API: those that grow are followed, a thread and a connection for each; others are read.

Threads, not asyncio: the official client is synchronous, and an event loop would need a second client, with its own way
to find the cluster. Most times 16 workers at most are followed; with --log-dir, and by ``torchnet logs -f``, all are:
up to 10,000, which wait in one read each. Logs that are whole are read by :data:`READERS` threads in turn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from torchnet.errors import ClusterError
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.client.watch import lines, own_error
from torchnet.k8s.run.log_parser import LONGEST, Resume, StampedLine, stamped

_SILENCE = 600.0  # seconds without a line, after which the connection is made anew: it may be dead
_RETRY = 1.0
READERS = 32

Line = Callable[[StampedLine], None]


class LogReaders:
    """Does what it is given in :data:`READERS` threads at most, which end when there is nothing left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: deque[Callable[[], None]] = deque()
        self._running = 0

    def take(self, work: Callable[[], None]) -> None:
        """Do ``work`` when it is its turn; it must not raise.

        Raises:
            RuntimeError: the machine allows no more threads, and there is none that could do it.
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
    """Follows the log of one container until it has ended and all of it has been read.

    ``line`` gets each line once, in order; ``said`` gets remarks (a gap, an error); both in the follower's thread.
    """

    def __init__(
        self,
        door: ApiClient,
        namespace: str,
        pod: str,
        container: str,
        *,
        line: Line,
        said: Callable[[str], None],
        follow: bool = True,
        tail: int | None = None,
    ) -> None:
        self._door, self._namespace, self._pod, self._container = door, namespace, pod, container
        self._line, self._said, self._follow = line, said, follow
        self._tail = tail  # so many lines of what was there already; None: all
        self._resume = Resume()
        self._ended = threading.Event()
        self._done = threading.Event()

    def start(self, readers: LogReaders) -> None:
        """Begin: among the ``readers`` where the log is whole, or only what it holds now is wanted.

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
        """The container has ended: what its log holds now is all."""
        self._ended.set()

    @property
    def busy(self) -> bool:
        """Whether lines may still come."""
        return not self._done.is_set()

    def _work(self) -> None:
        try:
            while not self._door.stop.is_set():
                last = self._ended.is_set() or not self._follow
                whole = self._read(follow=not last)
                if (last and whole) or self._door.stop.is_set():
                    return
                # A stream that ends in order while the container is said to run: its end is known in a moment.
                self._ended.wait(_RETRY if whole else 0.2)
        except ApiRefusal as error:
            # 404: the pod has been deleted, and its log with it. 400: no such container, or never started.
            if error.status not in (400, 404):
                self._said(f"the log of {self._pod} cannot be read: {error}")
        except ClusterError as error:
            self._said(f"the log of {self._pod} is lost: {error}")
        except Exception as error:
            self._said(str(own_error(f"the follower of {self._pod}'s log", error)))
        finally:
            self._done.set()

    def _read(self, *, follow: bool) -> bool:
        """Read until the stream ends; whether it did so in good order."""
        query: dict[str, object] = {"container": self._container, "timestamps": "true"}
        if follow:
            query["follow"] = "true"
        if self._resume.since:
            query["sinceTime"] = self._resume.since
        elif self._tail is not None:
            query["tailLines"] = self._tail
        self._resume.again()
        path = POD.path(self._namespace, self._pod, "log")
        call = POD.call("get", self._namespace, self._pod, "log")
        try:
            response = self._door.stream(path, call, query=query, silence=_SILENCE, patience=120.0)
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
                self._said(
                    f"the log of {self._pod} has a gap: its lines between {first} and {last} were rotated away"
                )
            self._line(line)
