"""A connection between two agents, which carries validated messages (torchnet.agent.messages)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.framed_socket import FramedSocket, pack
from torchnet.agent.messages import InvalidMessageError, Message, encode

M = TypeVar("M")


class MessageSocket(Generic[M]):
    """One end of the connection.

    Args:
        decode: validates a message; None: of an unknown type, and ignored.
        on_message: gets each message, and may raise InvalidMessageError if the message does not fit the state.
        on_end: called once, when the other end is gone (with "") or violates the protocol (with the error).
        received: bytes that were read after the handshake.
    """

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        decode: Callable[[dict[str, Any]], M | None],
        on_message: Callable[[M], None],
        on_end: Callable[[str], None],
        *,
        received: bytes = b"",
    ) -> None:
        self._decode = decode
        self._on_message = on_message
        self._on_end = on_end
        self._frames = FramedSocket(loop, sock, self._receive, lambda: on_end(""), received=received)

    @property
    def closed(self) -> bool:
        return self._frames.closed

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not accepted yet."""
        return self._frames.pending

    def send(self, message: Message) -> None:
        """Queue a message; discard it if this end is closed."""
        self.send_packed(pack_message(message))

    def send_packed(self, data: bytes) -> None:
        """Queue what :func:`pack_message` returned."""
        self._frames.send_packed(data)

    def close(self) -> None:
        """Close this end without calling ``on_end``."""
        self._frames.close()

    def _receive(self, data: dict[str, Any]) -> None:
        try:
            message = self._decode(data)
            if message is not None:
                self._on_message(message)
        except InvalidMessageError as error:
            self.close()
            self._on_end(str(error))


def pack_message(message: Message) -> bytes:
    """Return the frame of a message."""
    return pack(encode(message))
