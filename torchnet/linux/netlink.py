"""Netlink requests: one socket, encoded messages, acknowledgements, dumps (RFC 3549; include/uapi/linux/netlink.h)."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator

REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300  # NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ERROR, DONE = 2, 3
ROUTE, SOCK_DIAG = 0, 4  # NETLINK_ROUTE, NETLINK_SOCK_DIAG
_SOL_NETLINK, _EXT_ACK, _ADD_MEMBERSHIP = 270, 11, 1
_FLAG_ACK_TLVS, _FLAG_CAPPED, _FLAG_INTERRUPTED = 0x200, 0x100, 0x10
_CONSISTENT_TRIES = 10
_BUFFER = 32 << 20  # bytes; 8,000 sockets that close at once send 18 MB of events
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; missing in Python's socket
# Bytes per call: the kernel sends at most 32 KiB at once, and a larger buffer is mapped and cleared for each call.
_RECEIVE = 1 << 16
_BATCH = 128  # a batch's acknowledgements must fit the receive buffer


class Netlink:
    """A netlink socket of the network namespace that the creating thread is in.

    It stays in that namespace wherever the thread goes, so one process can serve many namespaces.
    """

    def __init__(self, family: int = ROUTE, groups: Iterable[int] = ()) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self.socket.bind((0, 0))
        self.socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # at most net.core.rmem_max
        with contextlib.suppress(PermissionError):
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        for group in groups:
            self.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._sequence = 0
        self._queue: list[tuple[int, bytes]] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def request(self, message: bytes) -> None:
        """Send one change and wait until the kernel has applied it.

        Raises:
            OSError: the kernel's error, with its message if it sent one.
        """
        self.batch([message])

    def batch(self, messages: Iterable[bytes], *, ignore: frozenset[int] = frozenset()) -> None:
        """Send many changes in few system calls; errors whose number is in ``ignore`` pass.

        Raises:
            OSError: the first error, once the kernel has answered its whole part of the batch.
        """
        pending = list(messages)
        while pending:
            part, pending = pending[:_BATCH], pending[_BATCH:]
            first = self._sequence + 1
            self.socket.send(b"".join(self._numbered(message, _ACK) for message in part))
            error: OSError | None = None
            for _ in part:
                while True:
                    kind, flags, sequence, body = self._next()
                    if kind == ERROR and sequence >= first:
                        break
                code = -struct.unpack_from("=i", body)[0]
                if code and code not in ignore and error is None:
                    error = OSError(code, _words(body, flags) or os.strerror(code))
            if error is not None:
                raise error

    def dump(self, message: bytes) -> list[tuple[int, bytes]]:
        """Return all answers to a dump request as (type, whole message); up to 10 tries if the table changes.

        Raises:
            OSError: the kernel's error, at the start or, in its DONE, at the end.
        """
        for _ in range(_CONSISTENT_TRIES):
            self.socket.send(self._numbered(message, _DUMP))
            answers, interrupted = self._answers(self._sequence)
            if not interrupted:
                break
        return answers

    def get(self, message: bytes) -> tuple[int, bytes]:
        """Return the single answer to a query such as a route lookup.

        Raises:
            OSError: the kernel's error, e.g. ENETUNREACH.
        """
        self.socket.send(self._numbered(message, 0))
        sequence = self._sequence
        for kind, flags, number, body in iter(self._next, None):
            if number != sequence:
                continue
            if kind == ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, _words(body, flags) or os.strerror(code))
            return kind, HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body
        raise AssertionError("unreachable")

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Yield the multicast messages that have arrived, without waiting.

        Raises:
            OSError: ENOBUFS, the kernel had to drop messages.
        """
        while True:
            try:
                data = self.socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield from _split(data)

    def _numbered(self, message: bytes, flags: int) -> bytes:
        self._sequence += 1
        length, kind, old, _, _ = HEADER.unpack_from(message)
        return HEADER.pack(length, kind, old | flags | REQUEST, self._sequence, 0) + message[HEADER.size :]

    def _answers(self, sequence: int) -> tuple[list[tuple[int, bytes]], bool]:
        # Read all of it: until then the kernel refuses another dump on this socket (EBUSY).
        answers: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            for kind, message in _split(self.socket.recv(_RECEIVE)):
                _, _, flags, number, _ = HEADER.unpack_from(message)
                if number != sequence:
                    continue
                interrupted = interrupted or bool(flags & _FLAG_INTERRUPTED)
                if kind in (DONE, ERROR):
                    code = (
                        -struct.unpack_from("=i", message, HEADER.size)[0]
                        if len(message) > HEADER.size
                        else 0
                    )
                    if code > 0:
                        raise OSError(code, os.strerror(code))
                    return answers, interrupted
                answers.append((kind, message))

    def _next(self) -> tuple[int, int, int, bytes]:
        if not self._queue:
            self._queue = list(_split(self.socket.recv(_RECEIVE)))
        kind, message = self._queue.pop(0)
        _, _, flags, sequence, _ = HEADER.unpack_from(message)
        return kind, flags, sequence, message[HEADER.size :]


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield kind, data[offset : offset + length]
        offset += (length + 3) & ~3


def attributes(message: bytes, offset: int) -> dict[int, bytes]:
    """Return the attributes of a message by type, from ``offset``; flags of nested ones are removed."""
    found = {}
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _words(body: bytes, flags: int) -> str:
    """Return the kernel's message in an extended acknowledgement (NLMSGERR_ATTR_MSG), or ""."""
    if not flags & _FLAG_ACK_TLVS:
        return ""
    offset = 4 + (HEADER.size if flags & _FLAG_CAPPED else struct.unpack_from("=I", body, 4)[0])
    return attributes(body, offset).get(1, b"").rstrip(b"\0").decode(errors="replace")
