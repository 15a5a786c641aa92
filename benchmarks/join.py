"""Time the join of many workers: seconds until all have the table, and messages and bytes for each.

    uv run -m benchmarks.join

The coordinator is the agent's, in its own process. The workers are real connections from a second process, which
authenticate with the token and receive the table. Each reads the whole table; one in a hundred also decodes it, as
every worker does on its own machine (here they would share two cores).
"""

from __future__ import annotations

import base64
import os
import resource
import time
from typing import Any

from benchmarks.machine import facts
from torchnet.agent import receipt
from torchnet.agent.coordinator import Coordinator
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.framed_socket import FramedSocket
from torchnet.agent.messages import JoinRequest
from torchnet.agent.rendezvous import Endpoint, connect_and_authenticate
from torchnet.agent.spec import AgentSpec
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow, decode

TOKEN = "benchmark"


def spec(nnodes: int, rank: int = 0) -> AgentSpec:
    return AgentSpec(
        run_id="join",
        nnodes=nnodes,
        node_rank=rank,
        nproc_per_node=8,
        command=("train.py",),
        token=TOKEN,
        python="python3",
        name=f"train-{rank}-x7k2p",
        loopback=True,
        start_timeout=60.0,
    )


def row(rank: int) -> PeerRow:
    rails = (PeerRail("net1", f"fcbb:0:800:ffff::{rank + 1:x}", 9000),)
    return PeerRow(
        rank, f"train-{rank}-x7k2p", os.urandom(8).hex(), rails, (f"10.244.{rank >> 8}.{rank & 255}",)
    )


def coordinate(nnodes: int) -> None:
    """Run rank 0's side until the other process ends it."""
    loop = EventLoop()
    Coordinator(
        loop, spec(nnodes), (Rail(0, None, "lo", "127.0.0.1", 4, 8, 65536),), lambda _event: None, receipt.job
    )
    loop.run()


def join(nnodes: int) -> tuple[float, float, float]:
    """Return (seconds, messages for each worker, bytes received by each)."""
    child = os.fork()
    if child == 0:
        coordinate(nnodes)
    loop = EventLoop()
    tables: list[int] = []
    messages = received = 0

    def on_message(message: dict[str, Any]) -> None:
        nonlocal messages, received
        messages += 1
        if message["type"] == "Table":
            received += len(message["table"])
            if len(tables) % 100 == 0:
                assert len(decode(base64.b64decode(message["table"])).rows) == nnodes
            tables.append(1)
            if len(tables) == nnodes:
                loop.stop()

    began = time.monotonic()
    frames = []
    for rank in range(nnodes):
        request = JoinRequest(row(rank), "join", nnodes)
        while True:
            try:
                sock = connect_and_authenticate(TOKEN, Endpoint("127.0.0.1"), request, 5.0)
                break
            except ConnectionRefusedError:
                began = time.monotonic()  # the coordinator is not listening yet
        messages += 1
        frames.append(FramedSocket(loop, sock, on_message, lambda: None))
    loop.run()
    taken = time.monotonic() - began
    os.kill(child, 9)
    os.waitpid(child, 0)
    for frame in frames:
        frame.close()
    loop.close()
    return taken, messages / nnodes, received / nnodes


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    print(facts())
    print(f"{'workers':>8} {'seconds':>8} {'messages each':>14} {'table bytes each':>17}")
    for nnodes in (10, 100, 1000):
        taken, messages, received = join(nnodes)
        print(f"{nnodes:8} {taken:8.2f} {messages:14.1f} {received:17.0f}")


if __name__ == "__main__":
    main()
