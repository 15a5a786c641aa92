"""A worker's account between two real namespaces: peers, others and torchnet's own connections apart."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from tests.namespaces import Space, cable, ip, isolated
from tests.unit.agents import rails, spec
from torchnet import constants
from torchnet.agent.accounting import UNKNOWN_INTERFACE, TrafficAccount, TrafficTotals
from torchnet.agent.receipt import worker
from torchnet.linux import sock_diag
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

OWN, PEER, STRANGER = "fd00::1", "fd00::2", "fd00::9"
TABLE = PeerTable(
    (
        PeerRow(0, "node-0", "u0", (PeerRail("net1", OWN, 1500),), ("172.30.0.1",)),
        PeerRow(1, "node-1", "u1", (PeerRail("net1", PEER, 1500),), ("172.30.0.2",)),
    )
)


def world() -> Space:
    far = Space()
    cable("net1", "net1", far, addresses=((f"{OWN}/64", f"{PEER}/64"),))
    cable("eth0", "eth0", far, addresses=(("172.30.0.1/16", "172.30.0.2/16"),))
    with far:
        ip(f"address add {STRANGER}/64 dev net1 nodad")
        for port in (7000, constants.JOIN_PORT):
            server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            threading.Thread(target=swallow, args=(server,), daemon=True).start()
    return far


def swallow(server: socket.socket) -> None:
    def drain(connection: socket.socket) -> None:
        with connection:
            count = answered = 0
            while data := connection.recv(1 << 16):
                count += len(data)
                connection.sendall(b"k" * (count // 1000 - answered))
                answered = count // 1000

    while True:
        threading.Thread(target=drain, args=server.accept()[:1], daemon=True).start()


def send(address: str, count: int, port: int = 7000, kept: list[socket.socket] | None = None) -> None:
    """Send so many bytes and hear a thousandth of them back."""
    sock = socket.create_connection((address, port), 10)
    while count:
        part = min(count, 50_000)
        sock.sendall(bytes(part))
        left = part // 1000
        while left:
            left -= len(sock.recv(left))
        count -= part
    sock.close() if kept is None else kept.append(sock)


def figures(traffic: TrafficTotals) -> dict[str, int]:
    found = {f"{rank}/{name}": flow.sent_bytes for (rank, name), flow in traffic.peers.items()}
    found |= {f"others/{name}": flow.sent_bytes for name, flow in traffic.others.items()}
    return found | {f"control/{name}": flow.sent_bytes for name, flow in traffic.control.items()}


@isolated
def test_who_got_how_much_over_which_interface() -> None:
    world()
    early: list[socket.socket] = []
    send(PEER, 70_000, constants.JOIN_PORT, early)  # before the account: the join
    send(PEER, 30_000, kept=early)
    control = {sock_diag.cookie(early[0])}
    account = TrafficAccount(TABLE, 0, control)
    before = dict.fromkeys(["1/net1", "control/net1"], 0)
    assert figures(account.read()) == before
    kept: list[socket.socket] = []
    send(PEER, 400_000)
    send(PEER, 100_000, kept=kept)
    send("172.30.0.2", 200_000)
    send(STRANGER, 300_000)
    send(PEER, 50_000, constants.JOIN_PORT)  # the job's: only the agent's own sockets are control
    send(PEER, 40_000, kept=kept)
    control.add(sock_diag.cookie(kept[-1]))
    early[0].sendall(bytes(999))
    early[1].sendall(bytes(555))
    with socket.create_server((OWN, 7100), family=socket.AF_INET6) as server:
        own = socket.create_connection((OWN, 7100))  # within the worker: crosses nothing
        accepted, _ = server.accept()
        own.sendall(b"x" * 1000)
        assert accepted.recv(1000)
    expected = {
        "1/net1": 550_555,
        "1/eth0": 200_000,
        "others/net1": 300_000,
        "control/net1": 40_999,
    }
    while any(sock.unacknowledged for sock in sock_diag.dump()):
        time.sleep(0.01)  # what counts has arrived
    traffic = account.settle()
    assert figures(traffic) == expected
    assert traffic.peers[1, "net1"].received_bytes == pytest.approx(550, abs=2)
    assert traffic.complete
    for sock in (*early, *kept):
        sock.close()
    assert figures(account.settle()) == expected  # closed or open is the same
    counter = traffic.counters["net1"]
    assert 850_000 < counter.sent_bytes < 1_000_000
    total = traffic.on_interface("net1")
    assert total.sent_bytes == 550_555 + 300_000 + 40_999
    account.close()


@isolated
def test_a_connection_that_is_reset_keeps_what_was_seen_of_it_and_the_account_is_no_proof_any_more() -> None:
    world()
    account = TrafficAccount(TABLE, 0, set())
    kept: list[socket.socket] = []
    send(PEER, 400_000, kept=kept)
    assert account.read().complete  # as the heartbeat reads it once a second
    # The kernel clears the figures of a socket that is closed so (SO_LINGER, 0 seconds).
    kept[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    kept[0].close()
    traffic = account.settle()
    assert figures(traffic) == {"1/net1": 400_000}
    assert not traffic.complete
    assert figures(account.settle()) == {"1/net1": 400_000}
    account.close()


@isolated
def test_a_reset_that_no_reading_saw_lowers_the_bound_by_what_the_interface_counted() -> None:
    world()
    account = TrafficAccount(TABLE, 0, set())
    send(PEER, 400_000)
    kept: list[socket.socket] = []
    send("172.30.0.2", 400_000, kept=kept)
    kept[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    kept[0].close()
    traffic = account.settle()
    assert set(figures(traffic)) == {"1/net1"}
    found = traffic.payload({"net1"})
    assert found.backend_low == pytest.approx(400_400, rel=0.01)
    assert found.elsewhere_low == 0
    assert 400_400 <= found.elsewhere_high < 404_000
    assert {(one.interface, one.reason) for one in found.unattributed} >= {("eth0", "sockets-lost")}
    account.close()


@isolated
def test_only_one_end_on_the_backend_is_a_connection_of_an_unknown_interface() -> None:
    """A socket bound to the frontend's address that sends to a rail's: the routes decide, here over net1."""
    far = world()
    ip("-6 address add fd00:9::1/64 dev eth0 nodad")
    with far:
        ip("-6 address add fd00:9::2/64 dev eth0 nodad")
    account = TrafficAccount(TABLE, 0, set())
    sock = socket.create_connection((PEER, 7000), 10, ("fd00:9::1", 0))
    sock.sendall(bytes(50_000))
    left = 50
    while left:
        left -= len(sock.recv(left))
    traffic = account.settle()
    assert traffic.peers[1, UNKNOWN_INTERFACE].sent_bytes == 50_000
    found = traffic.payload({"net1"})
    assert found.backend_high >= 50_000 > 49_000 < found.backend_low  # eth0 has carried the answers alone
    sock.close()
    account.close()


@isolated
def test_a_connection_that_left_no_final_counts_keeps_its_last_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world()
    account = TrafficAccount(TABLE, 0, set())
    kept: list[socket.socket] = []
    send(PEER, 400_000, kept=kept)
    assert account.read().complete
    monkeypatch.setattr(account.closed.netlink, "events", lambda: iter(()))  # as if the kernel had dropped it
    kept[0].close()
    traffic = account.settle()
    assert (figures(traffic), traffic.complete) == ({"1/net1": 400_000}, False)
    account.close()


@isolated
def test_readings_take_half_a_percent_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    world()
    account = TrafficAccount(TABLE, 0, set())
    kept: list[socket.socket] = []
    send(PEER, 10_000, kept=kept)
    assert account.refresh()
    assert 10_000 <= account.latest_peer_bytes < 11_000
    clock = [1.0]
    read = account.read

    def slow() -> TrafficTotals:
        clock[0] += 0.1
        return read()

    monkeypatch.setattr(account, "read", slow)
    monkeypatch.setattr(time, "thread_time", lambda: clock[0])
    monkeypatch.setattr(time, "monotonic", lambda: 1e6 + clock[0])
    account.refresh()
    for later, read_anew in ((19.8, False), (0.3, True)):
        clock[0] += later
        assert account.refresh() == read_anew
    monkeypatch.undo()
    account.close()


@isolated
def test_an_address_of_several_workers_is_nobodys() -> None:
    """As docker0's, or that of a node's own DNS server, which every worker reports."""
    world()
    rows = [PeerRow(r.node_rank, r.name, r.uid, r.rails, (*r.eth0, STRANGER)) for r in TABLE.rows]
    account = TrafficAccount(TABLE, 0, set())
    account.learn(PeerTable(tuple(rows)))
    send(STRANGER, 70_000)
    send("172.30.0.2", 20_000)
    send(PEER, 10_000)
    seen = figures(account.settle())
    # The last acknowledgements of what has just been closed may be missing.
    assert {name: round(count, -4) for name, count in seen.items()} == {
        "others/net1": 70_000,
        "1/eth0": 20_000,
        "1/net1": 10_000,
    }
    account.close()


@isolated
def test_lost_events_make_the_account_incomplete() -> None:
    world()
    account = TrafficAccount(TABLE, 0, set())
    account.closed.netlink.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(50):
        send(PEER, 1000)
    while any(sock.remote_port == 7000 for sock in sock_diag.dump()):
        time.sleep(0.01)  # open connections need no event
    assert not account.settle().complete
    account.close()


@isolated
def test_a_restart_brings_new_addresses_and_old_ones_stay_known() -> None:
    world()
    account = TrafficAccount(TABLE, 0, set())
    send(STRANGER, 10_000)
    moved = PeerRow(1, "node-1", "u2", (PeerRail("net1", STRANGER, 1500),))
    account.learn(PeerTable((TABLE.rows[0], moved)))
    send(STRANGER, 20_000)
    send(PEER, 40_000)
    assert figures(account.settle())["1/net1"] in (60_000, 70_000)
    account.close()


@isolated
def test_what_is_sent_twice_is_no_other_traffic() -> None:
    """Its acknowledgements lost, a sender repeats what the other end has: both interfaces count that again."""
    far = world()
    big = "link set net1 mtu 65535"
    ip(big)
    near_account = TrafficAccount(TABLE, 0, set())
    with far:
        ip(big)
        far_account = TrafficAccount(TABLE, 1, set())
    kept: list[socket.socket] = []
    for _ in range(8):
        send(PEER, 400_000, kept=kept)
    with far:
        ip(f"-6 route add blackhole {OWN}/128")
    for sock in kept:
        sock.sendall(bytes(60_000))
    time.sleep(1)  # the kernel repeats after 0.2 s, 0.6 s, …
    with far:
        ip(f"-6 route delete blackhole {OWN}/128")
    while any(sock.unacknowledged for sock in sock_diag.dump()):
        time.sleep(0.01)
    near = near_account.settle()
    with far:
        other = far_account.settle()
    sent, received = near.on_interface("net1"), other.on_interface("net1")
    assert (sent.sent_bytes, received.received_bytes) == (8 * 460_000, 8 * 460_000)
    assert near.counters["net1"].sent_bytes > 1.2 * sent.sent_bytes
    assert other.counters["net1"].received_bytes > 1.2 * received.received_bytes
    for rank, seen in enumerate((near, other)):
        found = worker(spec(rank), TABLE, rails(), seen, {}, [])
        assert (found["proof"], found["findings"]) == ("measured", [])
