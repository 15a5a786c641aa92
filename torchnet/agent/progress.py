"""Detect whether a job makes progress, by the payload that its sockets and RDMA devices move.

While a collective hangs, ProcessGroupNCCL's heartbeat monitor polls the store once a second for as long as the hang
lasts, and scripts may poll a store of their own. So neither any payload nor a sum over a long time is progress:

- The connections to the job's store do not count.
- A socket that moves at least 1 KiB within a second makes progress.
- With less, it makes progress if it has been silent for a while before: a small all-reduce every 30 s is a burst of
  some 100 bytes after a silence, and a poll is never silent for long.

Not by process: which rank owns a socket would take a scan of /proc for each reading.

Source:
    torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp, HeartbeatMonitor::runLoop; TORCH_NCCL_COORD_CHECK_MILSEC
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

RATE = 1024  # bytes in a second
SILENT_READINGS = 3  # not seconds: after a delay of the agent, one reading covers several
_FIN_BYTES = 1  # the kernel counts the peer's FIN as a received byte


class ProgressMeter:
    """Counts the readings, about one a second, in which a worker's payload made progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = clock()
        self._total = 0
        self._sockets: dict[int, tuple[int, int]] = {}  # by cookie: payload, and readings since it grew
        self.count = 0

    def update(self, sockets: Iterable[tuple[int, int]], total: int) -> None:
        """Take a reading.

        Args:
            sockets: the cookie and the payload of each open socket to a peer, except the store's.
            total: of what is not a socket, such as RDMA devices; it only grows.
        """
        now = self._clock()
        least = RATE * max(1.0, now - self._read_at)
        progress = total - self._total >= least
        known, self._sockets = self._sockets, {}
        for cookie, payload in sockets:
            before, silent = known.get(cookie, (0, 0))
            grown = payload - before
            if grown >= least or (grown > _FIN_BYTES and silent >= SILENT_READINGS):
                progress = True
            self._sockets[cookie] = payload, 0 if grown > 0 else silent + 1
        self._read_at, self._total = now, max(self._total, total)
        self.count += progress
