"""The bytes of each TCP connection of this host, by owner, remote address and interface, while a command runs.

Like `torchnet.agent.accounting`, but for a host that others use, too, and whose peers may not be known yet.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterable

from torchnet.agent.accounting import Flow
from torchnet.agent.process_tree import descendants
from torchnet.agent.socket_owners import Owner, Process, SocketOwners
from torchnet.agent.transports import NcclWatch
from torchnet.linux import protocol_counters, rtnetlink, sock_diag
from torchnet.linux.netlink import SOCK_DIAG, Netlink
from torchnet.linux.protocol_counters import ProtocolCounters
from torchnet.linux.rtnetlink import Counters
from torchnet.linux.sock_diag import SocketBytes
from torchnet.witness.host_record import ConnectionGroup, RemoteFlow

CPU_SHARE = 0.02  # of one core, which sampling may take
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 5.0
_QUIET_SECONDS, _SETTLE_SECONDS = 0.05, 0.5
# Limits on what is kept for a command with very many connections.
_MAX_REMOTES, _MAX_GROUPS, _MAX_OWNERLESS, _LISTED_GROUPS = 20_000, 20_000, 20_000, 64


class HostAccount:
    """The account, opened right before the command starts.

    Call :meth:`poll` when :attr:`closed` is readable, and :meth:`sample` repeatedly.
    """

    def __init__(self) -> None:
        self.closed = sock_diag.Destroyed()
        self.complete = True
        self._netlink = Netlink(SOCK_DIAG)
        self._rtnetlink = Netlink()
        self._addresses: dict[str, str] = {}
        self._learn_addresses()
        self._counters = rtnetlink.counters()
        self._protocols = protocol_counters.read()
        self._nccl = NcclWatch()
        self._routes: dict[tuple[str, str], str] = {}
        self.headers: dict[str, int] = {}
        """The least IP and TCP headers of a packet, by interface."""
        before = sock_diag.dump(self._netlink)
        self._base = {one.cookie: one for one in before}
        # The command does not exist yet, so these are not its connections.
        self.owners = SocketOwners(before, sock_diag.listening(self._netlink))
        self._open = dict(self._base)
        self._ownerless: deque[SocketBytes] = deque(maxlen=_MAX_OWNERLESS)
        self._flows: dict[tuple[Owner, str, str], Flow] = {}
        self._groups: dict[tuple[int, str, str], ConnectionGroup] = {}

    def poll(self) -> None:
        """Add the final counts of connections that have closed."""
        for socket in self.closed.read():
            self._open.pop(socket.cookie, None)
            self._end(socket)
        for cookie in self.closed.closed_without_counts:
            if (reset := self._open.pop(cookie, None)) is not None:  # a reset clears the counts
                self._end(reset)
            if not self.owners.is_another(cookie):
                self.complete = False
            self.owners.forget(cookie)
        self.closed.closed_without_counts.clear()

    def sample(self, *, last: bool = False) -> float:
        """Read all open connections and their owners; return the seconds until the next call."""
        began = time.thread_time()
        self.poll()
        self._nccl.poll(descendants)
        now = sock_diag.dump(self._netlink)
        self._open.update({socket.cookie: socket for socket in now})
        self.owners.look(now, sock_diag.listening(self._netlink), last=last)
        spent = time.thread_time() - began - self.owners.search_seconds
        return min(_MOST_SECONDS, max(_LEAST_SECONDS, spent / CPU_SHARE))

    def close(self) -> None:
        """End the account: wait for the last closed connections, then add those that are still open.

        The kernel reports closed connections from a work queue (net/core/sock_diag.c), shortly after they have left
        the dump, so wait until no more arrive. A connection whose report was lost counts with its last figures.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while select.select([self.closed], [], [], _QUIET_SECONDS)[0] and time.monotonic() < deadline:
            self.poll()
        self.sample(last=True)
        for socket in (*self._ownerless, *self._open.values()):
            self._add(socket, *self.owners.owner(socket))
        self.complete = self.complete and not self.closed.lost
        self.closed.close()
        self._netlink.close()
        self._rtnetlink.close()

    @property
    def nccl(self) -> bool:
        """Whether a process of the command had an NCCL process group."""
        return self._nccl.seen

    def flows(self) -> tuple[RemoteFlow, ...]:
        return tuple(
            RemoteFlow(owner, remote, interface, flow)
            for (owner, remote, interface), flow in sorted(self._flows.items())
        )

    def connections(self) -> tuple[ConnectionGroup, ...]:
        """Return the groups with the most bytes."""
        groups = sorted(self._groups.values(), key=lambda group: -group.total)
        return tuple(groups[:_LISTED_GROUPS])

    def counters(self) -> dict[str, Counters]:
        """Return the counters of each interface since the account was opened."""
        empty = Counters(0, 0)
        return {
            name: now.since(self._counters.get(name, empty)) for name, now in rtnetlink.counters().items()
        }

    def vanished(self) -> tuple[str, ...]:
        """Return the interfaces that have left the network namespace."""
        addressed = {name for address, name in self._addresses.items() if not address.startswith("fe80:")}
        return rtnetlink.vanished(self._counters, rtnetlink.counters(), addressed)

    def protocols(self) -> ProtocolCounters | None:
        """Return the counters of protocols since the account was opened; None if they cannot be read."""
        now = protocol_counters.read()
        return now.since(self._protocols) if now is not None and self._protocols is not None else None

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """Return this host's addresses by interface, without loopback."""
        found: dict[str, tuple[str, ...]] = {}
        for address, name in self._addresses.items():
            if name != "lo":
                found[name] = (*found.get(name, ()), address)
        return found

    def _end(self, socket: SocketBytes) -> None:
        """Add a connection that has ended; without an owner, keep it: the command may turn out to listen there."""
        owner, process = self.owners.owner(socket)
        self.owners.forget(socket.cookie)
        if owner != "unknown":
            self._add(socket, owner, process)
            return
        if len(self._ownerless) == _MAX_OWNERLESS:
            self._add(self._ownerless.popleft(), owner, process)
        self._ownerless.append(socket)

    def _add(self, socket: SocketBytes, owner: Owner, process: Process) -> None:
        if socket.local not in self._addresses:
            self._learn_addresses()
        interface = self._addresses.get(socket.local, "")
        if interface == "lo" or socket.remote in self._addresses:
            return  # within the host
        if owner != "other" and interface != self._route(socket.local, socket.remote, interface):
            interface = ""  # sent over another interface than the one with the address
        self.headers[interface] = min(socket.header, self.headers.get(interface, socket.header))
        flow = Flow()
        flow.add(socket, self._base.get(socket.cookie))
        key = (owner, socket.remote if owner != "other" else "", interface)
        if key not in self._flows and len(self._flows) >= _MAX_REMOTES:
            key = (owner, "", interface)
        self._flows.setdefault(key, Flow()).merge(flow)
        if owner == "job":
            self._add_connection(socket, process, interface, flow)

    def _add_connection(self, socket: SocketBytes, process: Process, interface: str, flow: Flow) -> None:
        key = (process.pid, socket.remote, interface)
        before = self._groups.get(key)
        if before is None and len(self._groups) >= _MAX_GROUPS:
            return
        accepted = self.owners.accepted(socket)
        self._groups[key] = ConnectionGroup(
            pid=process.pid,
            process=process.name,
            remote=socket.remote,
            interface=interface,
            port=socket.local_port if accepted else socket.remote_port,
            accepted=accepted,
            connections=1 + (before.connections if before else 0),
            sent_bytes=flow.sent_bytes + (before.sent_bytes if before else 0),
            received_bytes=flow.received_bytes + (before.received_bytes if before else 0),
        )

    def _route(self, local: str, remote: str, usual: str) -> str:
        """Return the interface over which packets between two addresses leave; the usual one if there is no route."""
        if len(self._routes) >= _MAX_REMOTES:
            self._routes.clear()
        if (local, remote) not in self._routes:
            try:
                found = rtnetlink.route(remote, self._rtnetlink, source=local).interface
            except OSError:  # link-local addresses, which need an interface; or the route is gone
                found = usual
            self._routes[local, remote] = found
        return self._routes[local, remote]

    def _learn_addresses(self) -> None:
        """Add this host's addresses. Those that it had before stay known."""
        pairs: Iterable[tuple[str, str]] = (
            (address.ip, name)
            for name, interface in rtnetlink.interfaces().items()
            for address in interface.addresses
        )
        self._addresses.update(pairs)
