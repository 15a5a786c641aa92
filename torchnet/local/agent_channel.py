"""Socket pairs between the launcher and its nodes' agents: events one way, orders the other."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable
from typing import Any

from torchnet.agent import worker_processes
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Event, Failure
from torchnet.agent.framed_socket import FramedSocket
from torchnet.agent.worker import Worker


class ChannelReporter:
    """The agent's end: sends events, and executes the orders ``stop``, ``freeze`` and ``thaw``."""

    def __init__(self, loop: EventLoop, sock: socket.socket, worker: Callable[[], Worker]) -> None:
        self._worker = worker
        self._frames = FramedSocket(loop, sock, self._order, self._alone)

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
        elif op in ("freeze", "thaw"):
            self._worker().freeze(op == "freeze")
            self.send({"event": "frozen", "frozen": op == "freeze"})

    def _alone(self) -> None:
        """Exit after the launcher has ended.

        In a sandbox the kernel kills all processes by itself; on loopback nothing else does.
        """
        worker_processes.kill_all()
        os._exit(137)


class AgentChannels:
    """The launcher's ends."""

    def __init__(self, count: int) -> None:
        pairs = [socket.socketpair() for _ in range(count)]
        self.ours = [pair[0] for pair in pairs]
        self.theirs = [pair[1] for pair in pairs]
        self.frames: dict[int, FramedSocket] = {}

    def descriptors(self) -> list[int]:
        """Return all ends; processes between the launcher and the nodes have to close them."""
        return [sock.fileno() for sock in (*self.ours, *self.theirs)]

    def in_node(self, rank: int) -> socket.socket:
        """In a node: keep that node's end, and close all others."""
        mine = self.theirs[rank]
        for sock in (*self.ours, *self.theirs):
            if sock is not mine:
                sock.close()
        return mine

    def begin(
        self, loop: EventLoop, event: Callable[[int, Event], None], gone: Callable[[int], None]
    ) -> None:
        """In the launcher, once the nodes exist: close the nodes' ends and serve its own."""
        for sock in self.theirs:
            sock.close()
        for rank, sock in enumerate(self.ours):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self.frames[rank] = FramedSocket(
                loop,
                sock,
                functools.partial(event, rank),
                functools.partial(gone, rank),
            )

    def hold(self, held: bool) -> None:
        """Pause or resume reading events; a long pause blocks the nodes' processes that write much output."""
        for frames in self.frames.values():
            frames.hold(held)

    def order(self, order: dict[str, Any], *, but: int | None = None) -> None:
        for rank, frames in self.frames.items():
            if rank != but:
                frames.send(order)
