"""Detect whether a job makes progress, by the payload that its sockets and RDMA devices move.

While a collective hangs, ProcessGroupNCCL's heartbeat monitor polls the store once a second for as long as the hang
lasts, and scripts may poll a store of their own. So neither any payload nor a sum over a long time is progress:

- A connection to the job's store makes progress from 16 KiB within a second: with the 10 ms of a store-based barrier,
  polls reach 8 KB. With less it is ignored.
- Any other socket that moves at least 1 KiB within a second makes progress.
- With less, it makes progress if it has been silent for a while before: a small all-reduce every 30 s is a burst of
  some 100 bytes after a silence, and a poll is never silent for long. The same holds for all new sockets together, so
  that the first small all-reduce counts, and polls that open a socket each do not.

Not by process: which rank owns a socket would take a scan of /proc for each reading.

Source:
    torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp, HeartbeatMonitor::runLoop; TORCH_NCCL_COORD_CHECK_MILSEC
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

RATE = 1024  # bytes in a second
STORE_RATE = 16 << 10
SILENT_READINGS = 3  # not seconds: after a delay of the agent, one reading covers several
_NEW = -1  # stands for all new sockets instead of a cookie
_FIN_BYTES = 1  # the kernel counts the peer's FIN as a received byte


class ProgressMeter:
    """Counts the readings, about one a second, in which a worker's payload made progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = clock()
        self._total = 0
        # By cookie: payload, and readings since it grew.
        self._sockets: dict[int, tuple[int, int]] = {_NEW: (0, SILENT_READINGS)}
        self.count = 0

    def update(self, sockets: Iterable[tuple[int, int, bool]], total: int) -> None:
        """Take a reading.

        Args:
            sockets: of each open socket to a peer, the cookie, the payload and whether the store is at one end.
            total: of closed sockets and RDMA devices.
        """
        now = self._clock()
        seconds = max(1.0, now - self._read_at)
        progress = total - self._total >= RATE * seconds
        known, self._sockets = self._sockets, {}
        created = known[_NEW][0]
        for cookie, payload, store in sockets:
            if cookie in known or store:
                progress |= self._grew(known.get(cookie, (0, 0)), cookie, payload, seconds, store=store)
            else:
                created += payload
                self._sockets[cookie] = payload, 0
        progress |= self._grew(known[_NEW], _NEW, created, seconds)
        self._read_at, self._total = now, max(self._total, total)
        self.count += progress

    def _grew(
        self, last: tuple[int, int], cookie: int, payload: int, seconds: float, *, store: bool = False
    ) -> bool:
        """Record a socket's payload; return whether its growth is progress."""
        grown, silent = payload - last[0], last[1]
        self._sockets[cookie] = payload, 0 if grown > 0 else silent + 1
        if store:
            return grown >= STORE_RATE * seconds
        return grown >= RATE * seconds or (grown > _FIN_BYTES and silent >= SILENT_READINGS)
