"""Time the join of many workers at once, rank 0's cost while they run, and the size of the receipt.

    uv run -m benchmarks.join

The coordinator is the agent's, in its own process. The workers are real clients of the rendezvous on loopback, up to
500 in a process. They start at the same moment, receive the table, and then exchange heartbeats. One in a hundred also
decodes the table, as every worker does on its own machine; here they share the machine's cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks.machine import facts
from torchnet import rlimits
from torchnet.agent import messages, receipt
from torchnet.agent.accounting import READING_LOAD, Flow, TrafficAccount, TrafficTotals
from torchnet.agent.admission import join_request
from torchnet.agent.coordinator import Coordinator
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.heartbeat import heartbeat_seconds
from torchnet.agent.message_socket import MessageSocket
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.preflight import ReplyRoutes
from torchnet.agent.rendezvous_client import RendezvousClient
from torchnet.agent.spec import AgentSpec
from torchnet.constants import JOIN_PORT
from torchnet.launcher.loopback_source import LoopbackSource, address
from torchnet.linux import sock_diag
from torchnet.linux.protocol_counters import ProtocolCounters
from torchnet.linux.rtnetlink import Counters
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

NPROC = 8
_OPEN_FILES = 12_000
_RUN_SECONDS = 15.0
_NICE = 10  # of the workers, which have machines of their own
_CONNECTIONS_PER_PROCESS = 4_000
_PER_PROCESS = 500  # with more, a worker's timeouts would expire while the others have their turn


def spec(nnodes: int, rank: int = 0, **fields: Any) -> AgentSpec:
    return AgentSpec(
        run_id="join",
        nnodes=nnodes,
        node_rank=rank,
        nproc_per_node=NPROC,
        command=("train.py",),
        token="benchmark",
        python="python3",
        name=f"train-{rank}-x7k2p",
        loopback=True,
        start_timeout=120.0,
        **fields,
    )


def row(rank: int) -> PeerRow:
    rails = (PeerRail("net1", f"fcbb:0:800:ffff::{rank + 1:x}", 9000),)
    return PeerRow(
        rank, f"train-{rank}-x7k2p", os.urandom(8).hex(), rails, (f"10.244.{rank >> 8}.{rank & 255}",)
    )


def rail(rank: int) -> Rail:
    return Rail(0, None, "lo", address(rank), 4, 8, 65536)


@dataclass
class JoinResult:
    """``tries``: of each worker. ``cpu``: part of a core that rank 0's coordinator uses while the job runs."""

    seconds: float
    tries: list[int]
    table_bytes: int
    cpu: float = 0.0


class Workers:
    """Some workers of a job without their training: they join, answer the table and send heartbeats."""

    def __init__(self, nnodes: int, ranks: range, began: float) -> None:
        self._nnodes, self._ranks, self._began = nnodes, ranks, began
        self._loop = EventLoop()
        self._connections: list[MessageSocket[messages.CoordinatorMessage]] = []
        self._tables = self._starts = self._table_bytes = 0
        self._seconds = 0.0

    def run(self, result: int) -> None:
        """Write the result to the descriptor once all have started; then run until this process is killed."""
        self._loop.every(heartbeat_seconds(self._nnodes), self._send_heartbeats)
        clients = [self._client(rank) for rank in self._ranks]
        self._loop.run()
        found = JoinResult(self._seconds, [client._tries for client in clients], self._table_bytes)
        with os.fdopen(result, "w") as file:
            json.dump(vars(found), file)
        self._loop.run()

    def _client(self, rank: int) -> RendezvousClient:
        own = spec(self._nnodes, rank)
        return RendezvousClient(
            self._loop,
            own,
            LoopbackSource(rank),
            rail(rank),
            join_request(own, row(rank)),
            frontend=None,
            connected=self._connected,
            failed=lambda failure: exit(failure.text),
            notice=print,
            phase_timer=PhaseTimer(lambda _event: None, age=0.0),
        )

    def _connected(self, sock: socket.socket) -> None:
        connection: MessageSocket[messages.CoordinatorMessage]

        def receive(message: messages.CoordinatorMessage) -> None:
            if isinstance(message, messages.Table):
                connection.send(messages.PreflightResult(message.round, (), 0))
            elif isinstance(message, messages.Start):
                self._starts += 1
                if self._starts == len(self._ranks):
                    self._loop.stop()

        connection = MessageSocket(self._loop, sock, self._decode, receive, exit)
        self._connections.append(connection)

    def _decode(self, data: dict[str, object]) -> messages.CoordinatorMessage | None:
        if data["type"] != "Table":
            return messages.decode_from_coordinator(data)
        self._tables += 1
        self._table_bytes = len(str(data["table"]))
        if self._tables == len(self._ranks):
            self._seconds = time.monotonic() - self._began
        if self._tables % 100 == 1:
            return messages.decode_from_coordinator(data)
        return messages.Table(0, int(str(data["round"])), PeerTable(()))

    def _send_heartbeats(self) -> None:
        for number, connection in enumerate(self._connections):
            connection.send(messages.Heartbeat(number))


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_child(body: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            body()
        finally:
            os._exit(1)
    return child


def join(nnodes: int) -> JoinResult:
    """Let ``nnodes`` workers join at once, and run for a while."""

    def coordinate() -> None:
        loop = EventLoop()
        Coordinator(loop, spec(nnodes), (rail(0),), lambda _event: None, receipt.job)
        loop.run()

    children = [in_child(coordinate)]
    began = time.monotonic() + 1.0  # for all processes to be ready
    pipes = []
    try:
        for first in range(0, nnodes, _PER_PROCESS):
            read, write = os.pipe()
            pipes.append(os.fdopen(read))

            def work(first: int = first, write: int = write) -> None:
                os.nice(_NICE)
                time.sleep(began - time.monotonic())
                Workers(nnodes, range(first, min(first + _PER_PROCESS, nnodes)), began).run(write)

            children.append(in_child(work))
            os.close(write)
        parts = [JoinResult(**json.load(pipe)) for pipe in pipes]
        before = cpu_seconds(children[0])
        time.sleep(_RUN_SECONDS)
        cpu = (cpu_seconds(children[0]) - before) / _RUN_SECONDS
    finally:
        for pipe in pipes:
            pipe.close()
        for child in reversed(children):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    tries = [count for part in parts for count in part.tries]
    return JoinResult(max(part.seconds for part in parts), tries, parts[0].table_bytes, cpu)


@contextlib.contextmanager
def connections(sockets: int) -> Iterator[None]:
    """Keep that many sockets of connections over loopback open, in processes of their own because of their limits."""
    ready, opened = os.pipe()

    def hold(first: int, last: int) -> None:
        kept = []
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
            for number in range(first, last):
                client = socket.socket()
                client.bind((address(number // 2), 0))
                client.connect(server.getsockname())
                client.send(b"x")
                kept += [client, server.accept()[0]]
        os.write(opened, b"x")
        signal.pause()

    children = []
    try:
        for first in range(0, sockets // 2, _CONNECTIONS_PER_PROCESS):
            last = min(first + _CONNECTIONS_PER_PROCESS, sockets // 2)
            children.append(in_child(partial(hold, first, last)))
            os.read(ready, 1)
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(ready)
        os.close(opened)


def reading(sockets: int) -> tuple[float, float]:
    """Return (CPU seconds of one reading of the account, seconds until the next one)."""
    with connections(sockets):
        account = TrafficAccount(PeerTable(tuple(row(rank) for rank in range(sockets // NPROC))), 0, set())
        began = time.thread_time()
        account.refresh()
        taken = time.thread_time() - began
        account.close()
    return taken, taken / READING_LOAD


def half_open(sockets: int, nnodes: int) -> float:
    """Return the CPU seconds of rank 0's look at half-open connections, while that many workers do not hear it.

    ``join`` has loopback's addresses, and so goes without.
    """
    with connections(sockets):
        routes = ReplyRoutes("train-0", replace(rail(0), address="127.0.0.1"))
        addresses = [address(rank) for rank in range(nnodes)]
        began = time.thread_time()
        assert sock_diag.half_open(JOIN_PORT) == []
        assert routes.problem(addresses) == ""
        return time.thread_time() - began


def receipt_bytes(nnodes: int, code: int = 0, *, complete: bool = True, **fields: Any) -> int:
    """Return the size of the receipt of a job in which each worker has exchanged bytes with each other one.

    Args:
        code: of each rank.
        complete: whether no worker has lost messages about its connections, which leaves bytes unexplained.
    """
    rows = tuple(row(rank) for rank in range(nnodes))
    parts = []
    for rank in range(nnodes):
        own = replace(spec(nnodes, rank, **fields), loopback=False)
        peers = {(n, "net1"): Flow(n * 10**9, 10**9, 10**6, 10**6) for n in range(nnodes) if n != rank}
        sent = sum(flow.sent_bytes for flow in peers.values()) + nnodes * 10**6 * 66
        traffic = TrafficTotals(
            peers,
            counters={"net1": Counters(sent, nnodes * 1066 * 10**6), "eth0": Counters(10**5, 10**5)},
            complete=complete,
            protocols=ProtocolCounters(0, 0, 0, 0, 0),
        )
        if not complete:
            traffic.counters["eth0"] = Counters(10**12, 10**12)
        codes = {str(number): code for number in own.ranks}
        rails = (replace(rail(0), interface="net1"),)
        part = receipt.worker(own, PeerTable(rows), rails, traffic, codes, [])
        parts.append(receipt.summary(own, part))
    own = replace(spec(nnodes, **fields), loopback=False)
    failure = Failure("script", "rank 1 exited with 1", code, 1, own.name, at=time.time()) if code else None
    whole = receipt.job(
        spec=own, receipts=parts, attachments=[None], failure=failure, began=time.time(), restarts=0
    )
    return len(json.dumps(whole, separators=(",", ":")))


def main() -> None:
    rlimits.raise_open_files(_OPEN_FILES)
    print(facts())
    print("\nThe join of all workers at once, and rank 0's coordinator while they run:")
    print(
        f"{'workers':>8} {'seconds':>8} {'1st try':>8} {'2nd try':>8} {'most':>5} {'table bytes':>12} {'CPU':>7}"
    )
    for nnodes in (10, 100, 1000, 10_000):
        found = join(nnodes)
        first, second = (sum(tries == number for tries in found.tries) for number in (1, 2))
        print(
            f"{nnodes:8} {found.seconds:8.2f} {first:8} {second:8} {max(found.tries):5} {found.table_bytes:12} "
            f"{found.cpu:7.1%}",
            flush=True,
        )
    print("\nReadings of the traffic account on rank 0, for its heartbeats:")
    print(f"{'sockets':>8} {'CPU s each':>11} {'period s':>9} {'of a core':>10}")
    for sockets in (8_000, 80_000):
        taken, pause = reading(sockets)
        print(f"{sockets:8} {taken:11.3f} {pause:9.1f} {taken / (taken + pause):10.1%}", flush=True)
    print("\nRank 0's look at half-open connections at a heartbeat, while all workers join:")
    print(f"{'workers':>8} {'sockets':>8} {'CPU s each':>11}")
    for nnodes, sockets in ((1000, 2000), (10_000, 20_000)):
        print(f"{nnodes:8} {sockets:8} {half_open(sockets, nnodes):11.4f}", flush=True)
    print("\nBytes of the receipt, if each worker has exchanged bytes with each other one:")
    print(f"{'workers':>8} {'default':>10} {'all failed':>11} {'incomplete':>11} {'--full-receipt':>15}")
    for nnodes in (10, 100, 1000):
        failed, incomplete = receipt_bytes(nnodes, 143), receipt_bytes(nnodes, 143, complete=False)
        print(
            f"{nnodes:8} {receipt_bytes(nnodes):10,} {failed:11,} {incomplete:11,} "
            f"{receipt_bytes(nnodes, full_receipt=True):15,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
