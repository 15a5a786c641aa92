"""`torchnet.traffic()`: this worker's bytes by interface and by peer, as the kernel counts them.

From two sources, neither of which needs privileges: the interfaces' 64-bit counters (rtnetlink, IFLA_STATS64)
and each TCP connection's counts by remote address (sock_diag, tcp_info).
"""

from __future__ import annotations

import os
import select
import time
import warnings
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torchnet import constants
from torchnet.errors import NetworkError

if TYPE_CHECKING:
    from torchnet.linux.sock_diag import Destroyed, SocketBytes

LOOPBACK = "lo"
_QUIET_SECONDS, _SETTLE_SECONDS = 0.02, 0.25  # stop waiting after so long without a closed connection; in all


@dataclass(frozen=True)
class Bytes:
    """Bytes sent and received."""

    sent_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.sent_bytes + other.sent_bytes, self.received_bytes + other.received_bytes)


@dataclass(frozen=True)
class Peer:
    """Traffic with one peer: TCP payload in bytes, in total and by local interface.

    ``name`` is the worker's name, or the address if names are unknown.
    """

    name: str
    sent_bytes: int
    received_bytes: int
    interfaces: Mapping[str, Bytes]


@dataclass(frozen=True)
class _Reading:
    interfaces: Mapping[str, Bytes]
    peers: Mapping[str, Peer]
    others: Bytes
    complete: bool


@dataclass
class _Sums:
    """Bytes by (peer, local interface), and of connections with hosts outside the job."""

    peers: dict[tuple[str, str], Bytes] = field(default_factory=dict)
    others: Bytes = Bytes()

    def copy(self) -> _Sums:
        return _Sums(dict(self.peers), self.others)


class Traffic:
    """Bytes of this **network namespace**: under torchnet the whole worker, because its ranks share one.

    Without torchnet it is the whole machine; never this process alone. :func:`traffic` returns a single
    reading. As a context manager, this counts from entry: inside the block each access to an attribute takes
    a new reading; afterwards the attributes keep their values from the end of the block.

    Attributes:
        interfaces: name -> :class:`Bytes`, everything that the interface carried, headers included.
        peers: name -> :class:`Peer`, payload of TCP connections with the job's workers. Names and workers are
            known under torchnet; elsewhere every remote address is a peer with that address as its name.
            Connections within the worker (ranks of one node) have the interface "lo", and each of their bytes
            counts at both ends, as in lo's counters.
        others: :class:`Bytes`, TCP payload with all other hosts if the workers are known, else zero.
        complete: False if the kernel dropped messages about closed connections, or a connection was reset, so that
            peers and others are too small.

    None of these includes RDMA, which bypasses the kernel.
    """

    def __init__(self) -> None:
        self._directory = _Directory()
        self._base: dict[str, Bytes] = _at_import()
        self._known: dict[int, SocketBytes] = {}  # by cookie, at entry
        self._seen: dict[int, SocketBytes] = {}  # by cookie, without final counts so far
        self._closed = _Sums()
        self._events: Destroyed | None = None
        self._complete = True
        self._last: _Reading | None = self._read()

    @property
    def interfaces(self) -> Mapping[str, Bytes]:
        return self._reading().interfaces

    @property
    def peers(self) -> Mapping[str, Peer]:
        return self._reading().peers

    @property
    def others(self) -> Bytes:
        return self._reading().others

    @property
    def complete(self) -> bool:
        return self._reading().complete

    def __enter__(self) -> Traffic:
        from torchnet.linux import sock_diag

        if self._events is not None:
            raise RuntimeError(
                "this torchnet.traffic() is entered already; call torchnet.traffic() again for another"
            )
        self._events = sock_diag.Destroyed()
        self._closed, self._complete, self._last = _Sums(), True, None
        self._known = {socket.cookie: socket for socket in sock_diag.dump()}
        self._seen = dict(self._known)
        self._base = _counters()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._events is not None
        # The kernel reports a closed connection from a work queue, a little after it leaves the list.
        deadline = time.monotonic() + _SETTLE_SECONDS
        while select.select([self._events], [], [], _QUIET_SECONDS)[0] and time.monotonic() < deadline:
            self._take_closed()
        self._last = self._read()
        self._events.close()
        self._events = None

    def __repr__(self) -> str:
        reading = self._reading()
        parts = [
            f"{n}: {_count_text(b)}"
            for n, b in reading.interfaces.items()
            if b.sent_bytes or b.received_bytes
        ]
        parts += [
            f"with {peer.name} over {name}: {_count_text(count)}"
            for peer in reading.peers.values()
            for name, count in peer.interfaces.items()
        ]
        return f"<Traffic {'; '.join(parts) or 'none'}>"

    def _reading(self) -> _Reading:
        return self._read() if self._last is None else self._last

    def _read(self) -> _Reading:
        from torchnet.linux import sock_diag

        self._seen.update((socket.cookie, socket) for socket in sock_diag.dump())
        self._take_closed()
        sums = self._closed.copy()
        self._count(sums, self._seen.values())
        now = _counters()
        interfaces = {name: bytes_since(self._base.get(name, Bytes()), count) for name, count in now.items()}
        return _Reading(interfaces, _by_peer(sums), sums.others, self._complete)

    def _take_closed(self) -> None:
        if self._events is None:
            return
        for socket in self._events.read():
            self._seen.pop(socket.cookie, None)
            self._count(self._closed, [socket])
        for cookie in self._events.closed_without_counts:  # a reset clears the counts: use the last reading
            last = self._seen.pop(cookie, None)
            self._count(self._closed, [last] if last else [])
            self._complete = False
        self._events.closed_without_counts.clear()
        self._complete = self._complete and not self._events.lost

    def _count(self, sums: _Sums, found: Iterable[SocketBytes]) -> None:
        for socket in found:
            base = self._known.get(socket.cookie)
            count = Bytes(socket.sent_bytes, socket.received_bytes)
            if base is not None:
                count = bytes_since(Bytes(base.sent_bytes, base.received_bytes), count)
            if not count.sent_bytes + count.received_bytes or self._directory.is_torchnets_own(socket):
                continue
            peer, interface = self._directory.place(socket)
            if peer is None:
                sums.others += count
            else:
                sums.peers[peer, interface] = sums.peers.get((peer, interface), Bytes()) + count


class _Directory:
    """Maps addresses to workers (by the job's table, a file that TORCHNET_TABLE names) and to interfaces."""

    def __init__(self) -> None:
        path = os.environ.get(constants.TABLE_VARIABLE, "")
        self._names = _names_by_address(path)
        self._control = _control_cookies(path) if self._names else frozenset()
        self._own: dict[str, str] = {}
        self._learn()

    def is_torchnets_own(self, socket: SocketBytes) -> bool:
        """The agent's control channel. The port does not identify it, because scripts use the same port."""
        return socket.cookie in self._control

    def place(self, socket: SocketBytes) -> tuple[str | None, str]:
        """Return the peer's name (None if outside the job) and the local interface of the connection."""
        if socket.local not in self._own:
            self._learn()  # a new address
        name = self._names.get(socket.remote)
        if socket.remote in self._own or _is_loopback(socket.remote):
            return name or socket.remote, LOOPBACK
        if name is None and self._names:
            return None, ""
        return name or socket.remote, self._own.get(socket.local, "?")

    def _learn(self) -> None:
        from torchnet.linux import rtnetlink

        for name, interface in rtnetlink.interfaces().items():
            self._own.update((address.ip, name) for address in interface.addresses)


def traffic() -> Traffic:
    """Return how many bytes went over which interface and to which peer.

    ``torchnet.traffic()`` is one reading: of the interfaces since this process imported `torchnet`, of the
    peers over the lifetime of the TCP connections that are open now. ``with torchnet.traffic() as t:`` counts
    from entry, and includes connections that close meanwhile::

        with torchnet.traffic() as t:
            train_one_epoch()
        t.interfaces["net1"].sent_bytes, t.peers["node-1"].received_bytes

    A reading takes about 1 ms, plus 10 µs per open connection: do not call this in every step.

    Returns:
        A :class:`Traffic`. All counts are whole bytes of the network namespace, never negative; those of
        peers are exact to a byte or two per connection.

    Raises:
        OSError: the kernel refuses netlink (a seccomp profile).
        RuntimeError: on entry, if the same object is already entered.

    Source:
        IFLA_STATS64 (include/uapi/linux/if_link.h), tcp_info (include/uapi/linux/tcp.h), /proc/net/dev at
        import.
    """
    return Traffic()


def _names_by_address(path: str) -> dict[str, str]:
    if not path:
        return {}
    from torchnet.network.peer_table import decode, owners

    try:
        with open(path, "rb") as file:
            table = decode(file.read())
    except (OSError, NetworkError) as error:
        warnings.warn(
            f"{constants.TABLE_VARIABLE}: {error}; peers are named by address", RuntimeWarning, stacklevel=5
        )
        return {}
    named = {row.node_rank: row.name for row in table.rows}
    return {address: named[rank] for address, rank in owners(table).items() if rank is not None}


def _control_cookies(path: str) -> frozenset[int]:
    """The cookies of the agent's own sockets."""
    try:
        with open(path + constants.CONTROL_SUFFIX, "rb") as file:
            return frozenset(array("Q", file.read()))
    except (OSError, ValueError) as error:
        text = f"{path}{constants.CONTROL_SUFFIX}: {error}; torchnet's own connections are counted as peers'"
        warnings.warn(text, RuntimeWarning, stacklevel=5)
        return frozenset()


def _counters() -> dict[str, Bytes]:
    from torchnet.linux import rtnetlink

    return {
        name: Bytes(count.sent_bytes, count.received_bytes) for name, count in rtnetlink.counters().items()
    }


def _at_import() -> dict[str, Bytes]:
    """Return the counters from torchnet's import, the same numbers as netlink's (net/core/net-procfs.c)."""
    import torchnet

    found = {}
    for line in torchnet._counters_at_import.decode("utf-8", "replace").splitlines()[2:]:
        name, _, numbers = line.rpartition(":")
        columns = numbers.split()
        found[name.strip()] = Bytes(sent_bytes=int(columns[8]), received_bytes=int(columns[0]))
    return found


def bytes_since(base: Bytes, now: Bytes) -> Bytes:
    """Return the difference; a recreated interface counts from zero."""
    if now.sent_bytes < base.sent_bytes or now.received_bytes < base.received_bytes:
        return now
    return Bytes(now.sent_bytes - base.sent_bytes, now.received_bytes - base.received_bytes)


def _by_peer(sums: _Sums) -> dict[str, Peer]:
    grouped: dict[str, dict[str, Bytes]] = {}
    for (name, interface), count in sorted(sums.peers.items()):
        grouped.setdefault(name, {})[interface] = count
    found = {}
    for name, interfaces in grouped.items():
        total = sum(interfaces.values(), Bytes())
        found[name] = Peer(name, total.sent_bytes, total.received_bytes, interfaces)
    return found


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def _count_text(count: Bytes) -> str:
    return f"{count.sent_bytes} sent, {count.received_bytes} received"
