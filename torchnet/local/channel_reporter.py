"""The agent's end of its channel to the launcher: events one way, orders the other."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from torchnet.agent import process_tree
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Event, Failure
from torchnet.agent.framed_socket import FramedSocket
from torchnet.agent.worker import Worker


class ChannelReporter:
    """Sends events, and executes the orders ``stop``, ``finish``, ``freeze`` and ``thaw``."""

    def __init__(self, loop: EventLoop, sock: socket.socket, worker: Callable[[], Worker]) -> None:
        self._worker = worker
        self._frames = FramedSocket(loop, sock, self._order, self._launcher_ended)

    def send(self, event: Event) -> None:
        self._frames.send(event)

    @property
    def pending(self) -> int:
        return self._frames.pending

    def flush(self) -> None:
        # This waits for a slow reader of the launcher's output. If the launcher ends, so does the wait.
        with contextlib.suppress(OSError):
            self._frames.flush()

    def _order(self, order: dict[str, Any]) -> None:
        op = order.get("op")
        if op == "stop":
            self._worker().interrupt(Failure.read(order["failure"]))
        elif op == "finish":
            self._worker().end_leftovers()
        elif op in ("freeze", "thaw"):
            self._worker().freeze(op == "freeze")
            self.send({"event": "frozen", "frozen": op == "freeze"})

    def _launcher_ended(self) -> None:
        """Exit after the launcher has ended.

        In a sandbox the kernel kills all processes by itself; on loopback nothing else does.
        """
        process_tree.kill_all()
        os._exit(137)
