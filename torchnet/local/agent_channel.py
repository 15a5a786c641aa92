"""Socket pairs between the launcher and its nodes' agents: the launcher's ends.

`torchnet.local.channel_reporter` is the other end.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Any

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Event
from torchnet.agent.framed_socket import FramedSocket
from torchnet.local import fork_safety


class AgentChannels:
    """The launcher's ends; ``theirs`` are the nodes', in node order."""

    def __init__(self, count: int) -> None:
        pairs = [fork_safety.socketpair() for _ in range(count)]
        self.ours = [pair[0] for pair in pairs]
        self.theirs = [pair[1] for pair in pairs]
        self.frames: dict[int, FramedSocket] = {}

    def serve(
        self, loop: EventLoop, event: Callable[[int, Event], None], disconnected: Callable[[int], None]
    ) -> None:
        """Once the supervisor has inherited the nodes' ends: close them here, and serve the launcher's."""
        for sock in self.theirs:
            sock.close()
        for rank, sock in enumerate(self.ours):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self.frames[rank] = FramedSocket(
                loop,
                sock,
                functools.partial(event, rank),
                functools.partial(disconnected, rank),
            )

    def close(self) -> None:
        """Close all ends; idempotent."""
        for sock in (*self.ours, *self.theirs):
            sock.close()

    def hold(self, held: bool) -> None:
        """Pause or resume reading events; a long pause blocks the nodes' processes that write much output."""
        for frames in self.frames.values():
            frames.hold(held)

    def send_order(self, order: dict[str, Any], *, but: int | None = None) -> None:
        for rank, frames in self.frames.items():
            if rank != but:
                frames.send(order)
