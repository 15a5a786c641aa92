"""Detect whether a job makes progress, by the payload that its sockets and RDMA devices move.

While a collective hangs, ProcessGroupNCCL's heartbeat monitor polls the store once a second for as long as the hang
lasts, and scripts may poll a store of their own. So neither any payload nor a sum over a long time is progress:

- A connection to the job's store makes progress from 16 KiB within a second: with the 10 ms of a store-based barrier,
  polls reach 8 KB. With less it is ignored.
- Everything else makes progress from 1 KiB within a second, together.
- With less, a connection makes progress if it was silent for some seconds before: a small all-reduce every 30 s is a
  burst of some 100 bytes after a silence, and a poll is never silent for long. The same holds for all new connections
  together, so that the first small all-reduce counts, and polls that open a connection each do not.
- What remains is a trickle: a small all-reduce every second, or polls of a store of the script's own. Nothing tells
  one from the other.

Not by process: which rank owns a socket would take a scan of /proc for each reading.

Source:
    torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp, HeartbeatMonitor::runLoop; TORCH_NCCL_COORD_CHECK_MILSEC
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

RATE = 1024  # bytes in a second
STORE_RATE = 16 << 10
SILENT_SECONDS = 2.5  # between readings, which may be 5 s apart or delayed
_NEW, _REST = -1, -2  # stand for all new sockets, and for what has no socket any more, instead of a cookie
_FIN_BYTES = 1  # the kernel counts the peer's FIN as a received byte


class ProgressMeter:
    """Counts the readings, about one a second, in which a worker's payload made progress.

    Attributes:
        count: The readings with progress.
        trickle: Those with less than that, apart from the store's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = clock()
        # By cookie: payload, and the time of the reading in which it last grew.
        self._sockets: dict[int, tuple[int, float]] = {_NEW: (0, -math.inf), _REST: (0, -math.inf)}
        self.count = self.trickle = 0

    def update(self, sockets: Iterable[tuple[int, int, bool]], rest: int) -> None:
        """Take a reading.

        Args:
            sockets: of each open socket to a peer, the cookie, the payload and whether the store is at one end.
            rest: the bytes of closed sockets and RDMA devices.
        """
        now = self._clock()
        seconds = max(1.0, now - self._read_at)
        known, self._sockets = self._sockets, {}
        created, moved, progress = known[_NEW][0], 0, False
        readings = [(_REST, max(rest, known[_REST][0]))]
        for cookie, payload, store in sockets:
            if store:
                self._sockets[cookie] = payload, now
                progress |= payload - known.get(cookie, (0, 0.0))[0] >= STORE_RATE * seconds
            elif cookie in known:
                readings.append((cookie, payload))
            else:
                created += payload
                self._sockets[cookie] = payload, now
        for cookie, payload in (*readings, (_NEW, created)):
            before, grown_at = known[cookie]
            grown = payload - before
            self._sockets[cookie] = payload, now if grown > 0 else grown_at
            progress |= grown > _FIN_BYTES and self._read_at - grown_at >= SILENT_SECONDS
            moved += max(0, grown)
        progress |= moved >= RATE * seconds
        self._read_at = now
        self.count += progress
        self.trickle += not progress and moved > _FIN_BYTES
