"""Messages over a stream socket: a length of four bytes, then JSON. Used between agents, and to the runtime.

``send`` never blocks: an agent that waited for a slow reader would seem dead to the others.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from torchnet.agent.event_loop import EventLoop

LENGTH = struct.Struct("!I")
LIMIT = 8 << 20
_AT_ONCE = 64  # messages per call; the kernel accepts up to 1,024
Message = dict[str, Any]


def pack(message: Message) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(data)) + data


class FramedSocket:
    """One end of a message stream, served by an event loop.

    ``on_message`` gets each message; ``on_close`` is called once, when the other end is gone or sends invalid data.
    """

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_close: Callable[[], None],
        *,
        received: bytes = b"",
        on_drain: Callable[[], None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._loop = loop
        self._on_message = on_message
        self._on_close = on_close
        self._on_drain = on_drain
        self._in = bytearray(received)
        self._out: deque[bytes] = deque()  # one copy of a large table serves all connections
        self._pending = self._sent = 0  # bytes: unsent in all; sent of the first message
        self.closed = False
        self._held = False
        loop.watch(sock, self._readable)
        if received:
            loop.later(0, self._deliver)

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not accepted yet."""
        return self._pending

    def send(self, message: Message) -> None:
        """Queue a message; discard it if this end is closed."""
        self.send_packed(pack(message))

    def send_packed(self, data: bytes) -> None:
        """Queue a message that is already packed."""
        if not self.closed:
            self._out.append(data)
            self._pending += len(data)
            self._writable()

    def close(self) -> None:
        """Close this end without calling ``on_close``."""
        if not self.closed:
            self.closed = True
            self._loop.watch(self.socket)
            self.socket.close()

    def hold(self, held: bool) -> None:
        """Stop or resume reading; while stopped, the other end has to wait."""
        if held != self._held and not self.closed:
            self._held = held
            self._watch()

    def flush(self) -> None:
        """Block until everything is sent or the other end is gone; for the end of the process."""
        if not self.closed and self._out:
            with contextlib.suppress(OSError):
                self.socket.settimeout(None)
                while self._out:
                    self.socket.sendall(memoryview(self._out[0])[self._sent :])
                    self._took(len(self._out[0]) - self._sent)

    def exchange(self, seconds: float) -> bool:
        """Send and receive what is possible without the loop; return False if that is nothing for ``seconds``."""
        if self.closed:
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        ready = sum(events for _, events in poll.poll(seconds * 1000))
        if ready & select.POLLOUT:
            self._writable()
        if ready & ~select.POLLOUT:
            self._readable()
        return bool(ready)

    def _readable(self) -> None:
        try:
            data = self.socket.recv(1 << 16)  # a larger buffer is mapped and cleared for each call: 40 µs
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        self._in += data
        self._deliver()

    def _deliver(self) -> None:
        while not self.closed and len(self._in) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._in)
            if length > LIMIT:
                self._gone()
                return
            if len(self._in) < LENGTH.size + length:
                return
            data = bytes(self._in[LENGTH.size : LENGTH.size + length])
            del self._in[: LENGTH.size + length]
            try:
                message = json.loads(data)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                self._gone()
                return
            self._on_message(message)

    def _writable(self) -> None:
        was = self._pending
        try:
            if self._out:
                first, *more = islice(self._out, _AT_ONCE)
                self._took(self.socket.sendmsg([memoryview(first)[self._sent :], *more]))
        except BlockingIOError:
            pass
        except OSError:
            # Messages may still be unread, so the reading side handles the end.
            self._out.clear()
            self._pending = self._sent = 0
        self._watch()
        if was > self._pending == 0 and self._on_drain is not None:
            self._on_drain()

    def _took(self, count: int) -> None:
        self._pending -= count
        self._sent += count
        while self._out and self._sent >= len(self._out[0]):
            self._sent -= len(self._out.popleft())

    def _watch(self) -> None:
        read, write = None if self._held else self._readable, self._writable if self._out else None
        self._loop.watch(self.socket, read, write)

    def _gone(self) -> None:
        if not self.closed:
            self.close()
            self._on_close()
