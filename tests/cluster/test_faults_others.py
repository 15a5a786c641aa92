"""Others on the job's networks: strangers at its door, and bytes that are not between peers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from typing import Any

import pytest

from tests.cluster import nodes
from tests.cluster.faults import process, python_in_network, within
from tests.cluster.launched import Launched
from tests.cluster.launcher import Launcher
from tests.cluster.places import node_address
from tests.cluster.pods import staying
from tests.jobs import SLOW, until
from tests.scripts import RAN


@pytest.fixture
def namespace(module_namespace: str) -> str:
    return module_namespace  # each of these tests leaves it as it was


# Knocks at both addresses of rank 0 in each way, and prints what it was given: bytes, or the error's name.
STRANGER = """
import json, os, resource, selectors, socket, sys, time
from torchnet.agent import handshake
from torchnet.constants import JOIN_PORT
from torchnet.agent.framed_socket import pack
got, kept = {}, []
for name, address in (("net1", sys.argv[1]), ("eth0", sys.argv[2])):
    for how in ("silent", "garbage", "wrong token"):
        data = b""
        try:
            sock = socket.create_connection((address, JOIN_PORT), 5)
            sock.settimeout(5)
            if how == "garbage":
                sock.sendall(os.urandom(3000))
            elif how == "wrong token":
                challenge = sock.recv(handshake.CHALLENGE_BYTES, socket.MSG_WAITALL)
                signed, _ = handshake.answer_challenge("wrong", challenge, {"row": "", "run": "row26", "nnodes": 2})
                sock.sendall(pack(signed))
            kept.append(sock)
            if how == "silent":
                sock.settimeout(1)
            while chunk := sock.recv(65536):
                data += chunk
            got[name + " " + how] = [len(data), ""]
        except OSError as error:
            got[name + " " + how] = [len(data), type(error).__name__]
print(json.dumps(got), flush=True)
# And a thousand at once, most of them silent; who is sent away comes again, until all is over.
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
crowd, came = selectors.DefaultSelector(), 0
def knock(number):
    global came
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((sys.argv[2], JOIN_PORT))
    crowd.register(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if number % 5 == 1 else 0), number)
    came += 1
for number in range(1000):
    knock(number)
began, said = time.monotonic(), False
while True:
    if not said and time.monotonic() > began + 1:
        said = not print("a thousand", flush=True)
    for key, events in crowd.select():
        sock, data = key.fileobj, b""
        try:
            if events & selectors.EVENT_WRITE:
                sock.send(os.urandom(3000))
                crowd.modify(sock, selectors.EVENT_READ, key.data)
                continue
            data = sock.recv(65536)
            if key.data % 5 == 2 and len(data) == handshake.CHALLENGE_BYTES:
                signed, _ = handshake.answer_challenge("wrong", data, {"row": "", "run": "row26", "nnodes": 2})
                sock.send(pack(signed))
        except OSError:
            pass
        if not data:
            crowd.unregister(sock)
            sock.close()
            time.sleep(0.002)
            knock(key.data)
    with open(sys.argv[3] + ".new", "w") as file:
        file.write(f"{len(crowd.get_map())} {came}")
    os.replace(sys.argv[3] + ".new", sys.argv[3])
"""
CHALLENGE = 26  # bytes: what everybody is asked first


@pytest.mark.quiet
def test_strangers_at_the_join_port(launcher: Launcher) -> None:
    """Row 26: another pod of the namespace, on the same networks, gets nothing; nor do a thousand harm the job."""
    pod = staying("stranger-of-row26", "node1", launcher.namespace)
    launcher.cluster.kubectl("create", "-n", launcher.namespace, "-f", "-", input=json.dumps(pod))
    with Launched(launcher, "row26", RAN, held=(1,)) as job:
        found = job.addresses(0)
        job.joined(job.joining(0), 0)
        there = partial(process, "stranger-of-row26", HOSTNAME="stranger-of-row26")
        until(there, "the stranger's pod", pause=SLOW)
        pid = there()
        rank0 = [address for key, address in found.items() if key != "net1"]
        count = launcher.folder / "strangers"
        with python_in_network(pid, STRANGER, found["net1"], *rank0, str(count)) as stranger:
            assert stranger.stdout is not None
            got = json.loads(stranger.stdout.readline())
            assert stranger.stdout.readline() == "a thousand\n"
            job.release(1)
            job.joining(1)
            knocked = time.monotonic()
            joined = job.wait_for("join: 2/2 joined")
            held, came = map(int, count.read_text().split())
            done = job.finish()
            stranger.kill()
    within(5, "the join among a thousand strangers", knocked, joined)
    print(f"{held} strangers at once, {came} in all")
    assert held == 1000
    assert came > 1000
    # Sent away with a reset or without one, as it comes.
    assert got.pop("eth0 garbage")[0] <= CHALLENGE
    assert got == {
        "eth0 silent": [CHALLENGE, "TimeoutError"],
        "eth0 wrong token": [0, ""],
        **{f"net1 {how}": [0, "ConnectionRefusedError"] for how in ("silent", "garbage", "wrong token")},
    }
    assert done.code == 0, done.stderr
    assert done.stdout.count("ran net1") == 2
    assert " left:" not in done.stderr
    launcher.cluster.kubectl("delete", "pod", "stranger-of-row26", "-n", launcher.namespace, "--wait=false")
    assert launcher.left() == []


# Rank 1 sends 20 MB to rank 0 over net1. Then rank 0 reads 200 MB from a server, or 10 MB from rank 1's eth0.
READER = """
    import os, socket, sys
    def take(sock, count):
        while count:
            data = sock.recv(min(count, 1 << 20))
            assert data
            count -= len(data)
    master, host, port = os.environ["MASTER_ADDR"], sys.argv[1], int(sys.argv[2])
    if os.environ["RANK"] == "0":
        server = socket.create_server((master, 7000), family=socket.AF_INET6)
        print("listening", flush=True)
        connection, _ = server.accept()
        take(connection, 20_000_000)
        if host == "peer":
            host = connection.recv(100).decode()
        with socket.create_connection((host, port)) as outside:
            take(outside, 10_000_000 if sys.argv[1] == "peer" else 200_000_000)
        connection.sendall(b"x")
    else:
        import time
        for _ in range(200):
            try:
                connection = socket.create_connection((master, 7000))
                break
            except OSError:
                time.sleep(0.05)
        connection.sendall(bytes(20_000_000))
        if host == "peer":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect(("10.96.0.1", 1))
                own = probe.getsockname()[0]
            server = socket.create_server((own, port))
            connection.sendall(own.encode())
            server.accept()[0].sendall(bytes(10_000_000))
        take(connection, 1)
"""
SERVE = """
import socket, sys
server = socket.create_server((sys.argv[1], 7777))
print("ready", flush=True)
connection, _ = server.accept()
for _ in range(200):
    connection.sendall(bytes(1_000_000))
"""


def test_the_share_counts_peers_alone(launcher: Launcher) -> None:
    """Row 30: 200 MB from a data server over eth0 leave the share alone, 10 MB from a peer's eth0 do not."""
    address = node_address("node2")
    line = (*nodes.inside("node2"), sys.executable, "-c", SERVE, address)
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        share = ("--min-share", "0.95", "--spread", "hard")
        with (
            Launched(launcher, "reader", READER, *share, arguments=(address, 7777)) as reader,
            Launched(launcher, "astray", READER, *share, arguments=("peer", 7001)) as astray,
        ):
            good, bad = reader.finish(), astray.finish()
        server.kill()
    assert good.code == 0, good.stderr
    assert reader.receipt()["backend_share"] >= 0.999
    assert bad.code == 5, bad.stderr
    found = astray.receipt()
    assert 0.6 < found["backend_share"] < 0.7
    assert found["proof"] == "measured"
    rank0 = _node(reader.receipt(), "reader-0")
    assert rank0["interfaces"]["eth0"]["received_bytes"] > 200_000_000  # the positive control
    assert launcher.left() == []


def _node(found: dict[str, Any], name: str) -> dict[str, Any]:
    (node,) = [one for one in found["nodes"] if one["node"] == name]
    made: dict[str, Any] = node
    return made
