"""A worker's account in its host's network: its own processes' connections, between the same hosts as others'."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

from tests.namespaces import Space, cable, isolated
from torchnet.agent.accounting import TrafficAccount
from torchnet.agent.host_accounting import HostTrafficAccount
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

OWN, PEER, FAR = "fd00::1", "fd00::2", "192.168.7.2"
TABLE = PeerTable(
    (
        PeerRow(0, "a", "u0", (PeerRail("ens5", OWN, 1500),), ("192.168.7.1",)),
        PeerRow(1, "b", "u1", (PeerRail("ens5", PEER, 1500),), (FAR,)),
    )
)
SINK = """
import socket, threading
server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
def drain(connection):
    while connection.recv(1 << 16):
        pass
print("ready", flush=True)
while True:
    threading.Thread(target=drain, args=server.accept()[:1], daemon=True).start()
"""
SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 7000))
connection.sendall(bytes(int(sys.argv[2])))
print("sent", flush=True)
sys.stdin.read()
"""


def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", script, *arguments]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@isolated
def test_only_the_workers_own_processes_count() -> None:
    far = Space()
    cable("ens5", "ens5", far, addresses=((f"{OWN}/64", f"{PEER}/64"),))
    cable("eth0", "eth0", far, addresses=(("192.168.7.1/24", f"{FAR}/24"),))
    with far:
        start(SINK)
    # This process stands for others on the host: it is no descendant of itself.
    storage = socket.create_connection((PEER, 7000))
    account = HostTrafficAccount(TABLE, 0, set())
    strange = socket.create_connection((FAR, 7000))
    children = [start(SEND, PEER, "80000"), start(SEND, FAR, "20000")]
    storage.sendall(bytes(1_000_000))
    strange.sendall(bytes(2_000_000))
    for _ in range(4):  # after which a socket that no descendant holds is somebody else's
        traffic = account.read()
        time.sleep(0.05)
    assert {key: flow.sent_bytes for key, flow in traffic.peers.items()} == {
        (1, "ens5"): 80_000,
        (1, "eth0"): 20_000,
    }
    assert traffic.complete
    # Of a stall, too: others' connections are no progress, and neither is what was moved before the start.
    assert sum(payload for _, payload, _ in account.peer_sockets(0)) == 100_000
    later = TrafficAccount(TABLE, 0, set())
    later.read()
    assert [payload for _, payload, _ in later.peer_sockets(0)] == [0] * 4
    later.close()
    for child in children:
        child.communicate(timeout=20)
    # Nobody saw these open: they may be the job's or not.
    for address in (PEER, FAR):
        with socket.create_connection((address, 7000)) as short:
            short.sendall(bytes(5_000))
    traffic = account.settle()
    assert round(account.closed_peer_bytes, -3) == 100_000
    assert account.peer_sockets(0) == []
    assert {key: flow.sent_bytes for key, flow in traffic.peers.items()} == {
        (1, "ens5"): 80_000,
        (1, "eth0"): 20_000,
    }
    assert {name: round(count, -3) for name, count in traffic.unowned.items()} == {"ens5": 5000, "eth0": 5000}
    found = traffic.payload({"ens5"})
    assert found.backend_high - found.backend_low >= 5_000
    assert found.elsewhere_high >= 25_000
