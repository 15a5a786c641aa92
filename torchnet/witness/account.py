"""The bytes of each TCP connection of this host, by owner, remote address and interface, while a command runs.

Like `torchnet.agent.accounting`, but on a host that others use, too: a connection is the command's only if one of its
processes has it open. A connection that begins and ends between two samples has no owner, unless its local port is one
on which the command listens.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from torchnet.agent.accounting import Flow
from torchnet.linux import rtnetlink, sock_diag
from torchnet.linux.netlink import SOCK_DIAG, Netlink
from torchnet.linux.sock_diag import SocketBytes
from torchnet.witness.host_record import ConnectionGroup, Owner, RemoteFlow
from torchnet.witness.ownership import open_sockets, process_name

CPU_SHARE = 0.02  # of one core, which sampling may take
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 5.0
_QUIET_SECONDS, _SETTLE_SECONDS = 0.05, 0.5
_LISTEN = 1 << 10
_ABSENT = 2  # complete scans without a holder, after which an open socket is another process's
_MAX_REMOTES, _MAX_GROUPS, _MAX_UNSEEN, _LISTED_GROUPS = 20_000, 20_000, 20_000, 64


@dataclass
class _Socket:
    """An open connection: the last counts, and what is known about its owner."""

    counts: SocketBytes
    owner: Owner = "unknown"
    process: tuple[int, str] = (0, "?")
    absent: int = 0


class HostAccount:
    """The account, opened right before the command starts.

    Call :meth:`poll` when :attr:`closed` is readable, and :meth:`sample` repeatedly.
    """

    def __init__(self) -> None:
        self.closed = sock_diag.Destroyed()
        self.complete = True
        self.unreadable: set[str] = set()
        """Processes of the command whose sockets could not be read."""
        self.elsewhere: set[str] = set()
        """Processes of the command in other network namespaces."""
        self._netlink = Netlink(SOCK_DIAG)
        self._addresses: dict[str, str] = {}
        self._learn_addresses()
        self._counters = rtnetlink.counters()
        self._base = {one.cookie: one for one in sock_diag.dump(self._netlink)}
        # The command did not exist yet, so these are not its connections.
        self._open = {cookie: _Socket(one, "other") for cookie, one in self._base.items()}
        self._listening = {
            one.cookie: _Socket(one, "other") for one in sock_diag.dump(self._netlink, states=_LISTEN)
        }
        self._unseen: deque[SocketBytes] = deque(maxlen=_MAX_UNSEEN)
        self._ports: dict[int, tuple[int, str]] = {}  # on which the command listens, with a process that does
        self._flows: dict[tuple[Owner, str, str], Flow] = {}
        self._groups: dict[tuple[int, str, str], ConnectionGroup] = {}

    def poll(self) -> None:
        """Add the final counts of connections that have closed."""
        for counts in self.closed.read():
            known = self._open.pop(counts.cookie, None)
            if known is None or known.owner == "unknown":
                self._add_ownerless(counts)
            else:
                known.counts = counts
                self._add(known)
        for cookie in self.closed.closed_without_counts:
            if (reset := self._open.pop(cookie, None)) is not None:  # a reset clears the counts
                self._add(reset)
                self.complete = False
        self.closed.closed_without_counts.clear()

    def sample(self) -> float:
        """Read all open connections and their owners; return the seconds until the next call."""
        began = time.thread_time()
        self.poll()
        seen = [self._see(self._open, counts) for counts in sock_diag.dump(self._netlink)]
        listening = [
            self._see(self._listening, counts) for counts in sock_diag.dump(self._netlink, states=_LISTEN)
        ]
        if unknown := [one for one in (*seen, *listening) if one.owner == "unknown"]:
            self._find_owners(unknown)
        self._ports.update({one.counts.local_port: one.process for one in listening if one.owner == "job"})
        return min(_MOST_SECONDS, max(_LEAST_SECONDS, (time.thread_time() - began) / CPU_SHARE))

    def _see(self, table: dict[int, _Socket], counts: SocketBytes) -> _Socket:
        """Update an open socket's entry in ``table``."""
        known = table.setdefault(counts.cookie, _Socket(counts))
        known.counts = counts
        if known.owner == "unknown" and known.absent >= _ABSENT and counts.inode:
            known.owner = "other"
        return known

    def _find_owners(self, unknown: list[_Socket]) -> None:
        scan = open_sockets()
        names: dict[int, str] = {}

        def process(pid: int) -> tuple[int, str]:
            if pid not in names:
                names[pid] = process_name(pid)
            return pid, names[pid]

        self.unreadable.update(process(pid)[1] for pid in scan.unreadable)
        self.elsewhere.update(process(pid)[1] for pid in scan.elsewhere)
        for one in unknown:
            inode = one.counts.inode  # 0 until the connection has been accepted
            if inode and inode in scan.holders:
                one.owner, one.process = "job", process(scan.holders[inode])
            elif inode and not scan.unreadable:
                one.absent += 1

    def _add_ownerless(self, counts: SocketBytes) -> None:
        """Keep a connection that has ended before its owner was seen: the command may have accepted it."""
        if len(self._unseen) == _MAX_UNSEEN:
            self._add(_Socket(self._unseen.popleft()))
        self._unseen.append(counts)

    def close(self) -> None:
        """End the account: wait for the last closed connections, then add those that are still open.

        The kernel reports closed connections from a work queue (net/core/sock_diag.c), shortly after they have left
        the dump, so wait until no more arrive.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while select.select([self.closed], [], [], _QUIET_SECONDS)[0] and time.monotonic() < deadline:
            self.poll()
        self.sample()
        for counts in self._unseen:
            process = self._ports.get(counts.local_port)
            self._add(_Socket(counts) if process is None else _Socket(counts, "job", process))
        for one in self._open.values():
            self._add(one)
        self.complete = self.complete and not self.closed.lost
        self.closed.close()
        self._netlink.close()

    def flows(self) -> tuple[RemoteFlow, ...]:
        return tuple(
            RemoteFlow(owner, remote, interface, flow)
            for (owner, remote, interface), flow in sorted(self._flows.items())
        )

    def connections(self) -> tuple[ConnectionGroup, ...]:
        """Return the groups with the most bytes."""
        groups = sorted(self._groups.values(), key=lambda group: -group.total)
        return tuple(groups[:_LISTED_GROUPS])

    def counters(self) -> dict[str, tuple[int, int]]:
        """Return the bytes sent and received by each interface since the account was opened."""
        found = {}
        for name, now in rtnetlink.counters().items():
            base = self._counters.get(name, rtnetlink.Counters(0, 0))
            found[name] = (
                max(0, now.sent_bytes - base.sent_bytes),
                max(0, now.received_bytes - base.received_bytes),
            )
        return found

    def _add(self, one: _Socket) -> None:
        counts = one.counts
        if counts.local not in self._addresses:
            self._learn_addresses()
        interface = self._addresses.get(counts.local, "")
        if interface == "lo" or counts.remote in self._addresses:
            return  # within the host
        flow = Flow()
        flow.add(counts, self._base.get(counts.cookie))
        remote = counts.remote if one.owner != "other" else ""
        key = (one.owner, remote, interface)
        if key not in self._flows and len(self._flows) >= _MAX_REMOTES:
            key = (one.owner, "", interface)
        self._flows.setdefault(key, Flow()).merge(flow)
        if one.owner == "job":
            self._add_connection(one, interface, flow)

    def _add_connection(self, one: _Socket, interface: str, flow: Flow) -> None:
        counts = one.counts
        pid, process = one.process
        key = (pid, counts.remote, interface)
        before = self._groups.get(key)
        if before is None and len(self._groups) >= _MAX_GROUPS:
            return
        accepted = counts.local_port in self._ports
        self._groups[key] = ConnectionGroup(
            pid=pid,
            process=process,
            remote=counts.remote,
            interface=interface,
            port=counts.local_port if accepted else counts.remote_port,
            accepted=accepted,
            connections=1 + (before.connections if before else 0),
            sent_bytes=flow.sent_bytes + (before.sent_bytes if before else 0),
            received_bytes=flow.received_bytes + (before.received_bytes if before else 0),
        )

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """Return this host's addresses by interface, without loopback."""
        found: dict[str, tuple[str, ...]] = {}
        for address, name in self._addresses.items():
            if name != "lo":
                found[name] = (*found.get(name, ()), address)
        return found

    def _learn_addresses(self) -> None:
        """Add this host's addresses. Those that it had before stay known."""
        pairs: Iterable[tuple[str, str]] = (
            (address.ip, name)
            for name, interface in rtnetlink.interfaces().items()
            for address in interface.addresses
        )
        self._addresses.update(pairs)
