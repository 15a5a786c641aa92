"""Count the bytes that the measured calls moved, from two of the kernel's sources: sockets and interfaces.

One rank of each node reads for the whole node, before the first lead-in call and after the last timed call. Only
sockets opened after :class:`ByteCounters` was created count, which excludes the store's, the agents' and the control
group's; of these, only sockets between the job's nodes. Interfaces count everything, headers and other programs' bytes
included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from torchnet.bench.worker.rank_context import RankContext
from torchnet.linux import rtnetlink, sock_diag

LOOPBACK = "lo"


@dataclass(frozen=True)
class CounterReading:
    """Bytes sent so far: for each socket, by cookie, with its interface; and for each interface."""

    sockets: dict[int, tuple[str, int]]
    interfaces: dict[str, int]


@dataclass(frozen=True)
class CounterDelta:
    """Bytes sent between two readings, by interface; "lo" is traffic between ranks of one node."""

    sockets: dict[str, int]
    interfaces: dict[str, int]


def subtract(before: CounterReading, after: CounterReading) -> CounterDelta:
    found: dict[str, int] = {}
    for cookie, (interface, count) in after.sockets.items():
        sent = count - before.sockets.get(cookie, ("", 0))[1]
        if sent > 0:
            found[interface] = found.get(interface, 0) + sent
    counters = {name: count - before.interfaces.get(name, 0) for name, count in after.interfaces.items()}
    return CounterDelta(found, {name: count for name, count in counters.items() if count > 0})


def sum_deltas(parts: list[CounterDelta | None]) -> CounterDelta | None:
    """Return the sum over all nodes; None if one could not be read."""
    whole = CounterDelta({}, {})
    for part in parts:
        if part is None:
            return None
        for into, of in ((whole.sockets, part.sockets), (whole.interfaces, part.interfaces)):
            for name, count in of.items():
                into[name] = into.get(name, 0) + count
    return whole


class ByteCounters:
    """Byte counters. All ranks must create it at the same point, with no traffic in flight, and call its methods
    together."""

    def __init__(self, place: RankContext) -> None:
        """Read the sockets that exist already. Without permission for netlink nothing is raised, and nothing is
        counted."""
        self._place = place
        self._reads = place.local_rank == 0
        self._own: dict[str, str] = {}
        self._ignored: set[int] = set()
        try:
            own = {a.ip: name for name, one in rtnetlink.interfaces().items() for a in one.addresses}
            self._own = own if self._reads else {}
        except OSError:
            self._reads = False
        texts = place.exchange(json.dumps(list(self._own)))
        self._known = {address for text in texts for address in json.loads(text)}
        # All ranks have answered, so the list contains every connection that existed before.
        try:
            self._ignored = {one.cookie for one in sock_diag.dump()} if self._reads else set()
        except OSError:
            self._reads = False
        place.barrier()
        self._before: CounterReading | None = None

    def start(self) -> None:
        self._before = self._read()

    def stop(self) -> CounterDelta | None:
        """Return what all nodes sent since :meth:`start`; None for a single node, or if it is not known."""
        after, before, self._before = self._read(), self._before, None
        if self._place.nodes < 2:
            return None
        own = subtract(before, after) if before is not None and after is not None else None
        text = json.dumps([own.sockets, own.interfaces] if own is not None else None)
        texts = self._place.exchange(text if self._place.local_rank == 0 else "")
        return sum_deltas(
            [CounterDelta(*found) if (found := json.loads(text)) else None for text in texts if text]
        )

    def _read(self) -> CounterReading | None:
        if not self._reads or self._place.nodes < 2:
            return None
        try:
            found = {
                one.cookie: (self._interface(one.local, one.remote), one.sent_bytes)
                for one in sock_diag.dump()
                if one.cookie not in self._ignored and one.remote in self._known
            }
            return CounterReading(
                found, {name: count.sent_bytes for name, count in rtnetlink.counters().items()}
            )
        except OSError:
            return None

    def _interface(self, local: str, remote: str) -> str:
        return LOOPBACK if remote in self._own else self._own.get(local, "?")
