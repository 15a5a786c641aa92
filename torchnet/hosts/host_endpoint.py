"""The rendezvous of a job on several hosts: at a name or an address that the hosts were given."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
from dataclasses import dataclass, field, replace
from typing import Any

from torchnet import constants
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.rendezvous import Endpoint
from torchnet.hosts.tcp_paths import TcpPaths
from torchnet.linux import rtnetlink
from torchnet.network.interface_selection import Rail
from torchnet.network.network_status import canonical

PORT_FIX = (
    "most likely another node or job of torchnet has it on this host, until its processes start; fix: for two nodes on "
    "one machine, --rdzv-endpoint localhost:PORT, or one launch with --nnodes 2; else "
    f"ss -lntup 'sport = :{constants.JOIN_PORT}' shows which program has it"
)


class LookUp:
    """A look-up of an endpoint's addresses in a thread, so that signals do not wait for a name server that is dead."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._found: list[tuple[socket.AddressFamily, tuple[Any, ...]]] | OSError = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._endpoint.resolve()
        except OSError as error:
            self._found = error

    def has_ended(self) -> bool:
        """Return whether the addresses are known. An address or a name of the hosts file is waited for."""
        self._thread.join(0.002)
        return not self._thread.is_alive()

    def result(self) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
        """Wait for the addresses, and return them.

        Raises:
            OSError: The name has none.
        """
        self._thread.join()
        if isinstance(self._found, OSError):
            raise self._found
        return self._found


@dataclass(frozen=True)
class FoundEndpoint(Endpoint):
    """An endpoint whose addresses are known."""

    found: tuple[tuple[socket.AddressFamily, tuple[Any, ...]], ...] = ()

    def resolve(self) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
        return list(self.found)


@dataclass(frozen=True)
class HostEndpoint(Endpoint):
    """Where rank 0 listens: on all of its addresses, as PyTorch's store does, unless all nodes are on its machine.

    The name may mean another address on rank 0's own host (127.0.1.1 on Debian) or from outside (NAT), so it does not
    tell which address to listen on.

    Attributes:
        alone: Whether all nodes are on this machine.
        listener: The socket that already listens here, if this process has opened it.
    """

    alone: bool = False
    listener: socket.socket | None = field(default=None, compare=False)

    def bound(self) -> socket.socket:
        if self.listener is not None:
            return self.listener
        problem: OSError | None = None
        candidates = self.resolve() if self.alone else [_any(self.port)]
        for family, address in candidates:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6 and not self.alone:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                sock.bind(address)
            except OSError as error:
                sock.close()
                if error.errno != errno.EADDRNOTAVAIL:  # ::1 of localhost without IPv6
                    raise
                problem = error
            else:
                return sock
        raise problem or OSError(f"{self.host} has no address")

    def opened(self) -> HostEndpoint:
        """Open the port, and return the endpoint with the socket.

        Of several processes of one machine that try, exactly one listens: the one that becomes rank 0.

        Raises:
            OSError: The port cannot be opened.
        """
        sock = self.bound()
        try:
            sock.listen()
        except OSError:
            sock.close()
            raise
        return replace(self, listener=sock)

    def close(self) -> None:
        """Close the socket that :meth:`opened` opened."""
        if self.listener is not None:
            self.listener.close()

    def tcp_check(self, loop: EventLoop, key: bytes, rails: tuple[Rail, ...]) -> TcpPaths | None:
        if self.alone or self.port == constants.JOIN_PORT:
            return None
        return TcpPaths(loop, key, rails, constants.JOIN_PORT)

    def port_fix(self, port: object) -> str:
        """Return what to do if this host's port of the preflight is in use; "" for another port."""
        return PORT_FIX if port == constants.JOIN_PORT and not self.alone else ""

    @property
    def on_loopback(self) -> bool:
        """Whether it was given as an address that means each machine itself, so that all nodes must be on one."""
        if self.host.lower() in ("localhost", "localhost.localdomain"):
            return True
        address = canonical(self.host)
        return address is not None and ipaddress.ip_address(address).is_loopback

    def addresses(self) -> tuple[str, ...]:
        """Return what the host resolves to here; () if it does not."""
        try:
            found = LookUp(self).result()
        except OSError:
            return ()
        return tuple(dict.fromkeys(str(address[0]).partition("%")[0] for _, address in found))

    def is_own(self) -> bool:
        """Return whether this machine is the endpoint's."""
        if self.host == socket.gethostname():
            return True
        own = {canonical(one.ip) for card in rtnetlink.interfaces().values() for one in card.addresses}
        return any(ipaddress.ip_address(one).is_loopback or canonical(one) in own for one in self.addresses())

    def interface(self) -> str:
        """Return the interface that has, or leads to, the endpoint's address; "" if that is not known."""
        interfaces = rtnetlink.interfaces()
        for text in self.addresses():
            for name, card in interfaces.items():
                if name != "lo" and canonical(text) in {canonical(one.ip) for one in card.addresses}:
                    return name
            if not ipaddress.ip_address(text).is_loopback:
                try:
                    return rtnetlink.route(text).interface
                except OSError:
                    continue
        return ""


def _any(port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    return (socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET), ("", port)
