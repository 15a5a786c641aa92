"""torchnet.traffic() on real networks: two nodes with eth0 and net1 each, and bytes that are known."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import torchnet
from tests import needs
from tests.training import CLEAN
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable, encode
from torchnet.training import Bytes
from torchnet.training.traffic_meter import bytes_since

# Two namespaces, joined by eth0 (IPv4) and net1 (IPv6); the far one echoes what it gets, the program runs in the near.
NODES = """
set -e
ip link set lo up
unshare -n sh -c 'ip link set lo up; echo; exec "$@"' sh "$1" -c "$2" > "$3/far" &
far=$!
trap 'kill $far' EXIT
until [ -s "$3/far" ]; do sleep 0.02; done
for i in eth0 net1; do ip link add $i type veth peer name $i netns $far; done
in_far() { nsenter -t $far -n "$@"; }
ip address add 172.30.0.2/16 dev eth0; in_far ip address add 172.30.0.3/16 dev eth0
in_far ip address add 172.30.0.99/16 dev eth0
ip address add fcbb:0:800:ffff::1/64 dev net1 nodad; in_far ip address add fcbb:0:800:ffff::2/64 dev net1 nodad
for i in eth0 net1; do ip link set $i up; in_far ip link set $i up; done
"$1" -c "$4"
"""
FAR = """
import socket, threading
def serve(connection):
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)
def listen(port):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()
threading.Thread(target=listen, args=(29500,), daemon=True).start()
listen(7000)
"""
NEAR = """
import os, socket, threading, time
import torchnet

def connect(address, port=7000):
    for _ in range(200):
        try:
            return socket.create_connection((address, port), 5)
        except OSError:
            time.sleep(0.02)
    raise SystemExit("the far node does not answer")

def echo(connection, count):
    sender = threading.Thread(target=connection.sendall, args=(b"x" * count,))
    sender.start()
    while count:
        count -= len(connection.recv(1 << 16))
    sender.join()
    time.sleep(0.05)  # the last acknowledgement

def near(count, expected):
    # The kernel counts a connection's end, and a beginning that it had to send again, as a byte.
    return all(abs(c - expected) < 10 for c in (count.sent_bytes, count.received_bytes))

NET1, ETH0 = "fcbb:0:800:ffff::2", "172.30.0.3"
"""


def on_two_nodes(script: str, tmp_path: Path, *, table: bool) -> None:
    env = dict(CLEAN)
    if table:
        rows = [
            PeerRow(
                n,
                f"node-{n}",
                "",
                (PeerRail("net1", f"fcbb:0:800:ffff::{n + 1}", 1500),),
                (f"172.30.0.{n + 2}", "172.30.0.99"),
            )
            for n in range(2)
        ]
        (tmp_path / "table").write_bytes(encode(PeerTable(tuple(rows))))
        (tmp_path / "table.control").write_bytes(b"")
        env["TORCHNET_TABLE"] = str(tmp_path / "table")
    needs.networks()
    needs.program("ip")
    argv = [
        "unshare",
        "-Urnm",
        "--kill-child",
        "--fork",
        "sh",
        "-c",
        NODES,
        "sh",
        sys.executable,
        FAR,
        str(tmp_path),
    ]
    done = subprocess.run(
        [*argv, NEAR + textwrap.dedent(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_bytes_are_counted_by_peer_and_interface(tmp_path: Path) -> None:
    on_two_nodes(
        """
        backend, frontend = connect(NET1), connect(ETH0)
        echo(backend, 5000)  # before: not counted
        with torchnet.traffic() as t:
            echo(backend, 3_000_000)
            assert near(t.peers["node-1"], 3_000_000), t  # inside: up to now
            echo(frontend, 70_000)
            closing = connect(NET1)
            echo(closing, 1_000_000)
            closing.close()
            time.sleep(0.1)
        echo(backend, 5000)  # after: not counted
        peer = t.peers["node-1"]
        assert near(peer.interfaces["net1"], 4_000_000), t
        assert near(peer.interfaces["eth0"], 70_000), t
        assert near(peer, 4_070_000), t
        assert set(t.peers) == {"node-1"} and t.complete, t
        # The other witness: packets with their headers.
        for name, payload in (("net1", 4_000_000), ("eth0", 70_000)):
            for count in (t.interfaces[name].sent_bytes, t.interfaces[name].received_bytes):
                assert payload < count < payload * 1.2, (name, t)
        assert t.others == torchnet.training.Bytes(), t
        assert f"with node-1 over net1: {peer.interfaces['net1'].sent_bytes} sent" in repr(t), t
        """,
        tmp_path,
        table=True,
    )


def test_strangers_are_no_peers_and_the_agents_sockets_count_nowhere(tmp_path: Path) -> None:
    on_two_nodes(
        """
        import struct
        STRANGER = "172.30.0.99"  # the far node again, under an address that both workers have, as docker0's
        agents = connect(NET1, 29500)
        with open(os.environ["TORCHNET_TABLE"] + ".control", "wb") as file:
            file.write(agents.getsockopt(socket.SOL_SOCKET, 57, 8) + struct.pack("=Q", 1 << 40))
        with torchnet.traffic() as t:
            connections = connect(NET1), connect(STRANGER), connect(NET1, 29500), agents
            for connection, count in zip(connections, (1000, 3000, 5000, 7000)):
                echo(connection, count)
            agents.close()
        assert set(t.peers) == {"node-1"} and near(t.peers["node-1"], 6000), t
        assert near(t.others, 3000), t
        """,
        tmp_path,
        table=True,
    )


def test_without_a_table_peers_are_addresses(tmp_path: Path) -> None:
    on_two_nodes(
        """
        with torchnet.traffic() as t:
            backend, frontend = connect(NET1), connect(ETH0)
            echo(backend, 1000)
            echo(frontend, 2000)
        assert set(t.peers) == {NET1, ETH0}, t
        assert near(t.peers[NET1], 1000) and near(t.peers[ETH0], 2000), t
        assert set(t.peers[NET1].interfaces) == {"net1"}, t
        """,
        tmp_path,
        table=False,
    )


def test_a_connection_that_has_just_closed_is_never_missing(tmp_path: Path) -> None:
    on_two_nodes(
        """
        for _ in range(20):
            with torchnet.traffic() as t:
                connection = connect(NET1)
                echo(connection, 1000)
                assert near(t.peers["node-1"], 1000), t
                connection.close()
                assert near(t.peers["node-1"], 1000), t
            assert near(t.peers["node-1"], 1000), t
        """,
        tmp_path,
        table=True,
    )


def test_a_plain_reading_counts_open_connections_and_interfaces_since_the_import(tmp_path: Path) -> None:
    on_two_nodes(
        """
        connection = connect(NET1)
        echo(connection, 100_000)
        t = torchnet.traffic()
        assert near(t.peers["node-1"], 100_000), t
        assert 100_000 < t.interfaces["net1"].sent_bytes < 150_000, t
        echo(connection, 100_000)
        assert near(t.peers["node-1"], 100_000), t  # it is a reading
        again = torchnet.traffic()
        assert near(again.peers["node-1"], 200_000), again
        """,
        tmp_path,
        table=True,
    )


def test_the_own_worker_is_on_lo(tmp_path: Path) -> None:
    on_two_nodes(
        """
        server = socket.create_server(("fcbb:0:800:ffff::1", 7002), family=socket.AF_INET6)
        with torchnet.traffic() as t:
            client = socket.create_connection(("fcbb:0:800:ffff::1", 7002))
            client.sendall(b"x" * 1000)
            far = server.accept()[0]
            assert len(far.recv(2000)) == 1000
            time.sleep(0.05)
        # Each byte is seen at both ends, as on lo itself.
        assert set(t.peers["node-0"].interfaces) == {"lo"} and near(t.peers["node-0"], 1000), t
        assert t.interfaces["net1"].sent_bytes < 1000 < t.interfaces["lo"].sent_bytes, t
        """,
        tmp_path,
        table=True,
    )


def test_a_table_that_cannot_be_read_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"no table")
    monkeypatch.setenv("TORCHNET_TABLE", str(tmp_path / "table"))
    with pytest.warns(RuntimeWarning, match="peers are named by address") as caught:
        torchnet.traffic()
    assert caught[0].filename == __file__


def test_control_sockets_that_are_not_known_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = PeerRow(0, "node-0", "", (PeerRail("net1", "fd00::1", 1500),))
    (tmp_path / "table").write_bytes(encode(PeerTable((row,))))
    (tmp_path / "table.control").write_bytes(b"no cookies")
    monkeypatch.setenv("TORCHNET_TABLE", str(tmp_path / "table"))
    with pytest.warns(RuntimeWarning, match="table.control") as caught:
        torchnet.traffic()
    assert caught[0].filename == __file__


def test_a_block_cannot_be_entered_twice_at_once_but_again() -> None:
    traffic = torchnet.traffic()
    with traffic, pytest.raises(RuntimeError, match="entered already"):
        traffic.__enter__()
    with traffic:
        pass


def test_the_two_readings_of_the_counters_are_the_same(tmp_path: Path) -> None:
    on_two_nodes(
        """
        from torchnet.training.traffic_meter import _at_import, _counters
        echo(connect(NET1), 100_000)
        for _ in range(50):  # a packet may come in between
            torchnet._counters_at_import = torchnet._counters_now()
            if _at_import() == _counters():
                break
        assert _at_import() == _counters(), (_at_import(), _counters())
        assert _at_import()["net1"].sent_bytes > 100_000
        """,
        tmp_path,
        table=False,
    )


def test_an_interface_made_anew_counts_from_nothing() -> None:
    assert bytes_since(Bytes(10, 10), Bytes(12, 11)) == Bytes(2, 1)
    assert bytes_since(Bytes(10, 10), Bytes(5, 11)) == Bytes(5, 11)
