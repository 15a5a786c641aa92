"""A DNS client that asks the pod's name servers for exactly one name: no search, no retries, a bounded time.

The system's resolver was rejected: it blocks for up to 5 s per name server and search domain, and it cannot ask past
a cached answer.
"""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import dataclass

from torchnet.network.dns_message import NO_ERROR, Question, Response, decode_response, encode_question

RESOLV_CONF = "/etc/resolv.conf"
_PORT = 53
_SECONDS = 0.5  # for a response; it blocks the event loop
_LIMIT = 1 << 20  # bytes of the file
_SERVERS = 3  # as in resolver(5)


class NoResponseError(OSError):
    """No name server responded, or there is none."""


@dataclass(frozen=True)
class NameServers:
    """The name servers and search domains of this pod."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    port: int = _PORT

    @classmethod
    def from_file(cls, path: str = RESOLV_CONF) -> NameServers:
        """Read resolv.conf(5). The kubelet writes it; without it there are no name servers."""
        servers: list[str] = []
        search: list[str] = []
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                lines = file.read(_LIMIT).splitlines()
        except OSError:
            return cls()
        for words in (line.split() for line in lines):
            if words[:1] == ["nameserver"] and len(words) > 1:
                servers.append(words[1])
            elif words[:1] in (["search"], ["domain"]):
                search = [word.strip(".") for word in words[1:]]
        return cls(tuple(servers[:_SERVERS]), tuple(search))

    def services_domain(self, namespace: str) -> str:
        """Return the domain of a namespace's Services: that in the search list, else the usual one."""
        prefix = f"{namespace}.svc."
        return next((one for one in self.search if one.startswith(prefix)), f"{prefix}cluster.local")

    def ask(self, question: Question) -> Response:
        """Ask all name servers at once; return the first response with addresses, else the last one.

        Raises:
            NoResponseError: none responded within 0.5 s.
        """
        number = int.from_bytes(os.urandom(2), "big")
        message = encode_question(question, number)
        problem, last = "there is no name server", None
        sockets = []
        try:
            for server in self.servers:
                try:
                    sockets.append(self._sent(server, message))
                except OSError as error:
                    problem = f"name server {server}: {error.strerror or error}"
            waiting, deadline = list(sockets), time.monotonic() + _SECONDS
            while waiting and (seconds := deadline - time.monotonic()) > 0:
                for sock in select.select(waiting, [], [], seconds)[0]:
                    try:
                        last = decode_response(sock.recv(1 << 16), question, number)
                    except OSError as error:  # the port is closed
                        problem = f"name server {sock.getpeername()[0]}: {error.strerror or error}"
                    except ValueError as error:
                        problem = f"name server {sock.getpeername()[0]} sent {error}"
                        continue
                    waiting.remove(sock)
                    if last is not None and last.code == NO_ERROR and last.addresses:
                        return last
            if last is None:
                late = [str(sock.getpeername()[0]) for sock in waiting]
                raise NoResponseError(
                    f"no response from the name server {', '.join(late)}" if late else problem
                )
            return last
        finally:
            for sock in sockets:
                sock.close()

    def _sent(self, server: str, message: bytes) -> socket.socket:
        """Return a socket on which the message has been sent."""
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.connect((server, self.port))
            sock.send(message)
        except OSError:
            sock.close()
            raise
        return sock
