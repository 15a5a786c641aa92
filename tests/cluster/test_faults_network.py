"""A backend that fails or is not what it should be, on real nodes: named in time, and never replaced by eth0."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import addons, nodes
from tests.cluster.cluster import Cluster
from tests.cluster.faults import (
    TALK,
    Launched,
    by_hand,
    cable_cut,
    in_network,
    mtu,
    never_started,
    packets_lost,
    pods,
    process,
    python_in_network,
    rendered,
)
from tests.cluster.launcher import Launcher
from tests.cluster.places import node_address
from tests.cluster.pods import staying
from tests.jobs import until
from torchnet.names import NETWORKS_ANNOTATION

RAN = """
    import os
    print("ran", os.environ["GLOO_SOCKET_IFNAME"], flush=True)
"""


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """One for all of these tests: each leaves it as it was."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def launcher(cluster: Cluster, namespace: str, tmp_path: Path) -> Launcher:
    return Launcher(cluster, namespace, tmp_path)


def test_a_worker_without_net1_is_refused(launcher: Launcher) -> None:
    """Row 10: eth0, which is there, is no way out."""
    with Launched(launcher, "row10", RAN, held=(1,)) as job:
        in_network(job.holder(1), "ip", "link", "delete", "net1")
        job.release(1)
        done = job.finish()
    assert done.code == 4, done.stderr
    assert re.search("row10-1: net1 .*no such interface", done.stderr), done.stderr
    assert "nothing was started; exit code 4" in done.stderr
    assert "ran" not in done.stdout
    assert launcher.left() == []


def test_a_pod_that_asks_for_no_net1_is_refused(launcher: Launcher) -> None:
    """Row 10 again, in pods by hand: nobody stops rank 0 but its own time-out."""
    objects = rendered(launcher, RAN, "--run-id", "row10", "--start-timeout", "12")
    (bare,) = [one for one in objects if one["kind"] == "Pod" and one["metadata"]["name"] == "row10-1"]
    del bare["metadata"]["annotations"][NETWORKS_ANNOTATION]
    with by_hand(launcher, objects) as job:
        done = job.finish()
        assert done.code == 4, done.stderr
        assert re.search(
            "row10-1: network-status has no entry for .*/backend-network@net1; it has primary", done.stderr
        )
        assert never_started(pods(launcher, "row10"))
        assert "ran" not in done.stdout


@pytest.mark.parametrize(
    ("range_", "length", "said"),
    [
        ("fcbb:0:800:eeee::/64", 64, "row11-[01]: net1.*duplicate address detection failed for fcbb:0:800:eeee::5/64"),
        ("10.77.0.0/24", 24, "address 10.77.0.5 belongs to (rank 0 and to )?row11-[01].*"),
    ],
    ids=["IPv6", "IPv4"],
)  # fmt: skip
def test_one_address_for_two_workers(launcher: Launcher, range_: str, length: int, said: str) -> None:
    """Row 11: given twice, as a wrong list or an ipam with a pool for each node does."""
    name = f"static{length}"
    given = ("--ipam", "static", "--range", range_, "--name", name)
    launcher.cluster.kubectl("apply", "-f", "-", input=addons.attachment(launcher.namespace, *given))
    base = range_.partition("/")[0].removesuffix("0") if length == 24 else range_.partition("/")[0]
    first, second = f"{base}5", f"{base}6"
    words = ("--run-id", "row11", "--start-timeout", "10", "--static-ips", f"{first}-{second}/{length}")
    text = json.dumps(rendered(launcher, RAN, *words, network=name))
    objects = json.loads(text.replace(f"{second}/", f"{first}/"))
    with by_hand(launcher, objects) as job:
        done = job.finish()
        assert done.code == 4, done.stderr
        assert re.search(said, done.stderr), done.stderr
        assert never_started(pods(launcher, "row11"))


def test_the_route_to_a_peer_leaves_through_eth0(launcher: Launcher) -> None:
    """Row 27: the peer and the fix are named."""
    with Launched(launcher, "row27", RAN, held=(1,)) as job:
        peer = job.address(0)
        in_network(job.holder(1), "ip", "-6", "route", "add", f"{peer}/128", "dev", "eth0")
        job.release(1)
        done = job.finish()
    assert done.code == 4, done.stderr
    said = f"row27-1 to rank 0 \\({peer}\\): the route leaves through eth0 .*fix: ip route replace {peer} dev net1"
    assert re.search(said, done.stderr), done.stderr
    assert "ran" not in done.stdout
    assert launcher.left() == []


def test_mtu_1500_on_one_node(launcher: Launcher) -> None:
    """Row 12: both values named."""
    with mtu(launcher.cluster, "node2", 1500), Launched(launcher, "row12", RAN, "--spread", "hard") as job:
        job.address(1)
        where = job.where()
        done = job.finish()
    assert done.code == 4, done.stderr
    narrow, wide = sorted(where, key=lambda rank: where[rank] == "node1")
    assert re.search(f"net1.*MTU 1500 on row12-{narrow}, MTU 9000 on row12-{wide}", done.stderr), done.stderr
    assert "ran" not in done.stdout
    assert launcher.left() == []


def test_a_nodes_cable(launcher: Launcher) -> None:
    """Row 8: a flap of 2 s is survived and in the receipt; a cut is named within 5 s and stops the job."""
    cluster = launcher.cluster
    with Launched(launcher, "row8", TALK, "--spread", "hard", "--link-grace", "3") as job:
        job.wait_for("exchanged 50", on="stdout")
        node = job.where()[1]
        address = job.address(1)
        with cable_cut(cluster, node) as cut:
            named = job.wait_for(
                rf"row8-1: net1 \({address}\) lost its carrier; the job stops if it is not back"
            )
            time.sleep(max(0, cut + 2 - time.monotonic()))
        job.wait_for(r"row8-1: net1 is back after [12]\.\d s")
        assert named - cut < 5
        count = len(re.findall("exchanged", job.text("stdout")))
        until(lambda: len(re.findall("exchanged", job.text("stdout"))) > count, "bytes after the flap", 15)
        with cable_cut(cluster, node) as cut:
            said = rf"row8-1.*net1 \({address}\) lost its carrier for more than 3 s"
            named = job.wait_for(said)
            done = job.finish()
    assert named - cut < 3 + 5
    assert done.code == 4, done.stderr
    assert done.at - cut < 30
    found = job.receipt()
    assert (found["failure"]["kind"], found["failure"]["node"]) == ("network", "row8-1")
    (worker,) = [one for one in found["nodes"] if one["node"] == "row8-1"]
    flaps = worker["flaps"]
    assert [flap["interface"] for flap in flaps][:1] == ["net1"]
    assert 1.5 < flaps[0]["duration_s"] < 4
    assert launcher.left() == []


def test_packets_are_lost_while_there_is_carrier(launcher: Launcher) -> None:
    """Row 9: a stall is told within its time-out and stops the job where that was asked for."""
    stall = ("--stall-timeout", "3", "--stall-action", "stop")
    with Launched(launcher, "row9", TALK, "--spread", "hard", *stall) as job:
        job.wait_for("exchanged 50", on="stdout")
        with packets_lost(*launcher.cluster.nodes) as lost:
            told = job.wait_for("stalled: almost nothing passed between the workers for [3-9] s")
            done = job.finish()
    assert told - lost < 3 + 2 + 3 + 5
    assert done.code == 124, done.stderr
    assert "no answer from node rank 1" in done.stderr
    assert "row9-0: " in done.stderr
    assert done.at - lost < 45
    assert launcher.left() == []


# Knocks at both addresses of rank 0 in each way, and prints what it was given: bytes, or the error's name.
STRANGER = """
import json, os, socket, sys, time
from torchnet.agent import handshake
from torchnet.agent.frames import pack
got, kept = {}, []
for name, address in (("net1", sys.argv[1]), ("eth0", sys.argv[2])):
    for how in ("silent", "garbage", "wrong token"):
        data = b""
        try:
            sock = socket.create_connection((address, 29500), 5)
            sock.settimeout(5)
            if how == "garbage":
                sock.sendall(os.urandom(3000))
            elif how == "wrong token":
                challenge = sock.recv(handshake.CHALLENGE_BYTES, socket.MSG_WAITALL)
                signed, _ = handshake.answer("wrong", challenge, {"row": "", "run": "row26", "nnodes": 2})
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
time.sleep(60)
"""
CHALLENGE = 26  # bytes: what everybody is asked first


def test_strangers_at_the_join_port(launcher: Launcher) -> None:
    """Row 26: another pod of the namespace, on the same networks, gets nothing; the job is unharmed."""
    pod = staying("stranger-of-row26", "node1", launcher.namespace)
    launcher.cluster.kubectl("create", "-n", launcher.namespace, "-f", "-", input=json.dumps(pod))
    with Launched(launcher, "row26", RAN, held=(1,)) as job:
        found = job.addresses(0)
        job.joined(job.preparing(0), 0)
        until(lambda: process("stranger-of-row26", HOSTNAME="stranger-of-row26"), "the stranger's pod")
        pid = process("stranger-of-row26", HOSTNAME="stranger-of-row26")
        rank0 = [address for key, address in found.items() if key != "net1"]
        with python_in_network(pid, STRANGER, found["net1"], *rank0) as stranger:
            assert stranger.stdout is not None
            got = json.loads(stranger.stdout.readline())
            job.release(1)
            done = job.finish()
            stranger.kill()
    # Sent away with a reset or without one, as it comes.
    assert got.pop("net1 garbage")[0] <= CHALLENGE
    assert got == {
        "net1 silent": [CHALLENGE, "TimeoutError"],
        "net1 wrong token": [0, ""],
        **{f"eth0 {how}": [0, "ConnectionRefusedError"] for how in ("silent", "garbage", "wrong token")},
    }
    assert done.code == 0, done.stderr
    assert done.stdout.count("ran net1") == 2
    assert "went away" not in done.stderr
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
