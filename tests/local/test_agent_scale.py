"""10,000 peers (fault 23): bounded time, memory and descriptors in everything that a worker does with them."""

from __future__ import annotations

import hashlib
import hmac
import os
import resource
import signal
import socket
import struct
import subprocess
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agents import spec
from tests.namespaces import isolated
from tests.rendezvous import connect_and_authenticate
from torchnet.agent import receipt
from torchnet.agent.accounting import TrafficAccount
from torchnet.agent.coordinator import Coordinator
from torchnet.agent.etc_hosts import add_peers
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.messages import JoinRequest
from torchnet.agent.preflight import Preflight
from torchnet.agent.rendezvous import MAX_UNAUTHENTICATED, Endpoint
from torchnet.agent.rendezvous_client import Attempt
from torchnet.errors import NetworkError
from torchnet.launcher.loopback_source import address
from torchnet.linux import rtnetlink
from torchnet.network import probe_plan
from torchnet.network.interface_selection import Rail
from torchnet.network.network_status import parse
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable, check, decode, encode

MANY = 10_000
MB = 1 << 20


def row(rank: int) -> PeerRow:
    rails = (PeerRail("lo", address(rank), 65536), PeerRail("net2", f"fd01::{rank + 1:x}", 9000))
    return PeerRow(
        rank, f"worker-{rank}", f"uid-{rank:x}-{rank * 7919:x}", rails, (f"10.{rank >> 8}.{rank & 255}.1",)
    )


TABLE = PeerTable(tuple(row(rank) for rank in range(MANY)))


def measured(action: Callable[[], object], *, seconds: float, megabytes: float) -> None:
    """AssertionError when it takes more processor time or memory; twice, since tracing costs time."""
    before = time.process_time()
    action()
    assert time.process_time() - before < seconds
    tracemalloc.start()
    try:
        action()
        assert tracemalloc.get_traced_memory()[1] < megabytes * MB
    finally:
        tracemalloc.stop()


def test_the_table_is_small_and_quickly_read() -> None:
    data = encode(TABLE)
    assert len(data) < 40 * MANY
    assert decode(data) == TABLE
    measured(lambda: decode(data), seconds=5, megabytes=60)
    measured(lambda: encode(TABLE), seconds=5, megabytes=60)
    measured(lambda: check(TABLE), seconds=3, megabytes=60)


def test_the_plan_stays_short_and_joins_all() -> None:
    most = 0
    reached = {0}
    for rank in range(MANY):
        peers = probe_plan.peers(rank, MANY)
        most = max(most, len(peers))
        if rank in reached:
            reached.update(peers)
    assert most <= 15
    assert len(reached) == MANY
    measured(lambda: probe_plan.paths(MANY), seconds=3, megabytes=5)


def test_a_status_of_many_interfaces_is_read_in_bounded_memory() -> None:
    entry = '{"name":"ns/net-%d","interface":"net%d","ips":["fd00::%x"],"mac":"02:00:00:00:00:01"}'
    entries = ",".join(entry % (n, n, n) for n in range(9000))
    text = f"[{entries}]"
    assert len(text) < MB
    assert len(parse(text)) == 9000
    measured(lambda: parse(text), seconds=5, megabytes=60)


def test_the_hosts_file_is_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    measured(lambda: add_peers(TABLE, "run", path=str(path)), seconds=2, megabytes=30)
    assert (
        path.read_text().count("\n") == 5 * MANY + 1
    )  # as many names as a worker has addresses, IPv4 ones mapped as well


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def rails(rank: int) -> tuple[Rail, ...]:
    return (Rail(0, None, "lo", address(rank), 4, 8, 65536),)


@isolated
def test_a_preflight_and_an_account_among_many_need_few_descriptors() -> None:
    table = PeerTable(tuple(PeerRow(r.node_rank, r.name, r.uid, r.rails[:1], r.eth0) for r in TABLE.rows))
    loop = EventLoop()
    peers = probe_plan.peers(0, MANY)
    others = [Preflight(loop, b"key", rails(rank), loopback=True) for rank in peers]
    before = descriptors()
    own = Preflight(loop, b"key", rails(0), loopback=True)
    answers: list[list[str]] = []

    def done(problems: list[str]) -> None:
        answers.append(problems)
        loop.stop()

    own.check(table, 0, peers, done)
    loop.run()
    assert answers == [[]]
    assert descriptors() - before == 1
    measured(lambda: TrafficAccount(table, 0, set()).read(), seconds=3, megabytes=30)
    before = descriptors()
    account = TrafficAccount(table, 0, set())
    account.read()
    assert descriptors() - before <= 1
    began, cpu, readings = time.monotonic(), time.thread_time(), [False]
    while time.monotonic() < began + 2:
        readings.append(account.refresh())
        time.sleep(0.01)
    assert 1 < sum(readings) < len(readings) / 2
    assert time.thread_time() - cpu < 0.1
    account.close()
    for one in (own, *others):
        one.close()
    loop.close()


@isolated
def test_the_route_to_each_worker_is_looked_up_though_few_are_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (
        "link add net1 type veth peer name eth0", "link set net1 up", "link set eth0 up",
        "address add 10.9.0.1/16 dev net1", "address add 10.8.0.1/16 dev eth0", "route add 10.9.3.4 dev eth0",
    ):  # fmt: skip
        subprocess.run(["ip", *command.split()], check=True)
    many = 2000
    rows = tuple(
        PeerRow(n, f"worker-{n}", "", (PeerRail("net1", f"10.9.{(n + 1) >> 8}.{(n + 1) & 255}", 1500),))
        for n in range(many)
    )
    table, loop = PeerTable(rows), EventLoop()
    own = Preflight(loop, b"key", (Rail(0, None, "net1", "10.9.0.1", 4, 16, 1500),))
    answers: list[list[str]] = []
    notices: list[str] = []
    assert 3 * 256 + 3 not in probe_plan.peers(0, many)
    began = time.process_time()
    own.check(table, 0, probe_plan.peers(0, many), answers.append, notices.append)
    assert time.process_time() - began < 1
    ((problem,),) = answers
    assert "worker-0 to worker-771 (10.9.3.4)" in problem
    assert "through eth0" in problem
    limit = rtnetlink.neighbour_limit(4)
    assert len(notices) == (many - 1 > limit)
    monkeypatch.setattr(rtnetlink, "neighbour_limit", lambda _family: 1500)
    own.check(table, 0, probe_plan.peers(0, many), answers.append, notices.append)
    for token in ("1,999", "1,500", "net.ipv4.neigh.default.gc_thresh3=3998"):
        assert token in notices[-1]
    own.close()
    loop.close()


@isolated
def test_a_reply_counts_only_from_the_peers_address_on_the_rail() -> None:
    """Worker 1's comes from another address, worker 2's names another rail; worker 3's is as it should be."""
    rows = tuple(PeerRow(n, f"worker-{n}", "", (PeerRail("lo", address(n), 65536),)) for n in range(4))
    loop, port, key = EventLoop(), 7777, b"key"
    own, other = (Preflight(loop, key, rails(n), port=port, loopback=True) for n in (0, 3))
    sockets = {n: socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for n in (1, 2, 9)}
    for n, sock in sockets.items():
        sock.bind((address(n), port))
    head = struct.Struct("!4sBHI")

    def reply(to: socket.socket, by: socket.socket, rail: int) -> None:
        data, sender = to.recvfrom(1 << 16)
        made = head.pack(b"tnet", 1, rail, head.unpack_from(data)[-1])
        made += hmac.new(key, made, hashlib.sha256).digest()[:8]
        by.sendto(made.ljust(len(data), b"\0"), sender)

    loop.watch(sockets[1], lambda: reply(sockets[1], sockets[9], 0))
    loop.watch(sockets[2], lambda: reply(sockets[2], sockets[2], 1))
    answers: list[str] = []

    def done(problems: list[str]) -> None:
        answers.extend(problems)
        loop.stop()

    own.check(PeerTable(rows), 0, (1, 2, 3), done)
    loop.run()
    first, second = answers
    assert "worker-1" in first
    assert f"came from rail 0, {address(9)}" in first
    assert "worker-2" in second
    assert f"came from rail 1, {address(2)}" in second
    for end in (own, other, *sockets.values()):
        end.close()  # type: ignore[attr-defined]
    loop.close()


def test_probes_to_rank_0_are_spread_over_time() -> None:
    """10,000 large datagrams at once would not fit its receive buffer."""
    delays = []
    for rank in range(1, 40):
        loop = EventLoop()
        own = Preflight(loop, b"key", (Rail(0, None, "lo", "127.0.0.1", 4, 8, 65536),), port=0, loopback=True)
        began = time.monotonic()
        own.check(TABLE, rank, probe_plan.peers(rank, MANY), lambda _problems: None)
        (probe,) = (one for one in own._probes if one.peer == 0)
        delays.append(probe.due - began)
        assert own._deadline > probe.due + 2
        own.close()
        loop.close()
    assert max(delays) - min(delays) > 2.5
    assert max(delays) <= 5.5


def coordinator(loop: EventLoop, nnodes: int) -> Coordinator:
    told = spec(Path("/nowhere"), 0, nnodes, loopback=True)
    return Coordinator(loop, told, rails(0), lambda _event: None, receipt.job)


@isolated
def test_rank_0_allows_itself_a_descriptor_for_each_worker() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    loop = EventLoop()
    joined: list[socket.socket] = []
    coordinator(loop, 200)
    pid = os.fork()
    if pid == 0:
        for rank in range(1, 190):
            request = JoinRequest(TABLE.rows[rank], "the-run", 200)
            joined.append(
                connect_and_authenticate(
                    "the token of the tests", Endpoint(address(0)), request, 20.0, address(rank)
                )
            )
        os._exit(0)
    ended: list[int] = []

    def look() -> None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended.append(status)
            loop.stop()

    loop.every(0.02, look)
    loop.run()
    assert ended == [0]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200 + 64 + 8 + MAX_UNAUTHENTICATED, hard)
    loop.close()


@isolated
def test_a_thousand_workers_join_at_once_at_the_first_try() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    pid = os.fork()
    if pid == 0:
        loop = EventLoop()
        coordinator(loop, 2000)  # which waits for more
        loop.run()
    time.sleep(0.5)
    loop = EventLoop()
    results: list[socket.socket | OSError | ValueError] = []

    def done(result: socket.socket | OSError | ValueError) -> None:
        results.append(result)
        if len(results) == 1000:
            loop.stop()

    for rank in range(1, 1001):
        request = JoinRequest(TABLE.rows[rank], "the-run", 2000)
        Attempt(loop, "the token of the tests", Endpoint(address(0)), request, done, source=address(rank))
    loop.run()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [result for result in results if not isinstance(result, socket.socket)] == []


@isolated
def test_a_hard_limit_that_is_too_low_is_told_before_anybody_joins() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 150))
    with pytest.raises(NetworkError, match=r"200 workers needs 272 .* 150") as caught:
        coordinator(EventLoop(), 200)
    assert "ulimit -Hn" in caught.value.fix
