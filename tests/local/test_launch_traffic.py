"""The receipt against what was really sent: by plain sockets, to peers and to others, over both networks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.jobs import ROOT, Job, lines, parent, receipt, run, script, until

MB = 1_000_000

# Rank 0 receives what rank 1 sends: pairs of "address=bytes" on the command line, one connection each. From the
# stranger, rank 1 reads. LEAK_PORT: the port of all but the first.
SEND = """
    import os, socket, sys, time

    def connect(address, port):
        for _ in range(600):
            try:
                return socket.create_connection((address, port))
            except OSError:
                time.sleep(0.1)
        sys.exit(f"nobody answers at {address}")

    block = bytearray(1_000_000)
    for number, word in enumerate(sys.argv[1:]):
        address, count = word.split("=")
        port, left = 20000 + number, int(count)
        if number:
            port = int(os.environ.get("LEAK_PORT", port))
        if os.environ["RANK"] == "1" and address == "172.30.9.9":
            peer = connect(address, port)
            while got := peer.recv_into(block):
                left -= got
            assert not left, left
        elif os.environ["RANK"] == "1":
            peer = connect(address, port)
            while left:
                left -= peer.send(block[:left])
            assert peer.recv(1) == b"x"  # it has everything
            peer.close()
        elif address != "172.30.9.9":
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            peer = socket.create_server((address, port), family=family).accept()[0]
            while left and (got := peer.recv_into(block)):
                left -= got
            peer.sendall(b"x")
            assert not left and not peer.recv(1), left
"""
NET1, NET2, ETH0 = "fcbb:0:800:ffff::1", "fcbb:0:800:fffe::1", "172.30.1.1"
STRANGER = "172.30.9.9"  # on the frontend, and no worker

# Serves "address port bytes" on the frontend's own bridge, in the namespaces of a process.
SERVE = """
import os, socket, sys
from torchnet.linux import link_setup, namespaces
from torchnet.linux.netlink import Netlink
pid, address, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
kinds = {"user": namespaces.NEWUSER, "net": namespaces.NEWNET}
spaces = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds}
for kind, number in kinds.items():
    namespaces.setns(spaces[kind], number)
fabric = Netlink()
fabric.request(link_setup.address(link_setup.index_of(fabric, "front"), address, 16))
peer = socket.create_server((address, port)).accept()[0]
block = bytes(1_000_000)
for _ in range(count // len(block)):
    peer.sendall(block)
"""


@contextmanager
def stranger(job: Job, port: int, count: int) -> Iterator[None]:
    """A server that the first who connects reads ``count`` bytes from."""
    needs.networks()
    until(
        lambda: 1 in job.ranks(), "the rank that reads from the server runs"
    )  # the other one may have ended
    above = parent(job.agent(1))  # the job's first process: in the namespace where the bridges are
    command = [sys.executable, "-c", SERVE, str(above), STRANGER, str(port), str(count)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as server:
        try:
            yield
        finally:
            server.kill()
            assert server.stderr is not None
            said = server.stderr.read()
    assert not said, said.decode()


def about(count: int) -> Any:
    """The kernel counts the end of a stream as a byte, sometimes."""
    return pytest.approx(count, abs=16)


@pytest.fixture
def send(tmp_path: Path) -> Path:
    return script(tmp_path, SEND, "send.py")


def exchanged(node: dict[str, Any]) -> dict[str, int]:
    """Payload with the peers, by interface, both directions."""
    found: dict[str, int] = {}
    for peer in node["peers"]:
        found[peer["interface"]] = (
            found.get(peer["interface"], 0) + peer["sent_bytes"] + peer["received_bytes"]
        )
    return found


def test_what_goes_to_a_peers_net1_is_all_on_the_backend(send: Path, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    done = run("--json", path, "--min-share", "0.95", "--run-id", "one-way", send, f"{NET1}={20 * MB}")
    assert done.code == 0, done.stderr
    found = receipt(path)
    assert (found["backend_share"], found["proof"], found["findings"]) == (1.0, "measured", [])
    assert (found["exit_code"], found["reason"], found["failure"]) == (0, "done", None)
    assert (found["runtime"], found["network"], found["run_id"]) == ("local", "namespaces", "one-way")
    assert (found["nnodes"], found["nproc_per_node"], found["world_size"], found["restarts"]) == (2, 1, 2, 0)
    assert found["ranks"] == [
        {"rank": rank, "local_rank": 0, "node": f"node-{rank}", "exit_code": 0} for rank in (0, 1)
    ]
    network = {"interface": "net1", "attachment": "default/backend-network"}
    assert found["rails"] == [{**network, "peer_bytes": about(40 * MB), "share": 1.0}]
    receiver, sender = found["nodes"]
    assert sender["peers"] == [
        {"node": "node-0", "interface": "net1", "sent_bytes": about(20 * MB), "received_bytes": about(1)}
    ]
    assert receiver["peers"] == [
        {"node": "node-1", "interface": "net1", "sent_bytes": about(1), "received_bytes": about(20 * MB)}
    ]
    for node, word in ((sender, "sent_bytes"), (receiver, "received_bytes")):
        assert (node["peer_bytes"], node["other_bytes"], node["proof"]) == (about(20 * MB), 0, "measured")
        assert {name: one["role"] for name, one in node["interfaces"].items()} == {
            "eth0": "frontend",
            "net1": "backend",
        }
        # The second witness counts headers, too, what went twice, and torchnet's own messages.
        assert 20 * MB < node["interfaces"]["net1"][word] < 25 * MB
        assert node["interfaces"]["eth0"][word] < 0.1 * MB
    assert (
        "backend share 100 % (measured, TCP) of 20.00 MB exchanged between the workers, over net1"
        in done.stderr
    )
    assert "--min-share 95 % is reached" in done.stderr


def test_bytes_to_a_peers_eth0_lower_the_share(send: Path, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    done = run("--json", path, "--min-share", "0.95", send, f"{NET1}={20 * MB}", f"{ETH0}={10 * MB}")
    found = receipt(path)
    assert (done.code, found["exit_code"]) == (5, 5), done.stderr
    assert found["backend_share"] == pytest.approx(20 / 30, rel=0.02)
    assert found["proof"] == "measured"
    for node in found["nodes"]:
        assert exchanged(node) == {"net1": about(20 * MB), "eth0": about(10 * MB)}
        assert node["other_bytes"] == 0
    assert found["nodes"][1]["interfaces"]["eth0"]["sent_bytes"] == pytest.approx(11 * MB, rel=0.1)
    assert "the backend's share is below --min-share 0.95: 0.666" in found["reason"]
    assert "--min-share 95 % is not reached: 66." in done.stderr
    assert found["failure"] is None
    assert [rank["exit_code"] for rank in found["ranks"]] == [0, 0]


def test_port_29500_counts_like_any_other(send: Path, tmp_path: Path) -> None:
    """PyTorch's default MASTER_PORT, which a script may open itself on any worker."""
    path = tmp_path / "receipt.json"
    arguments = ("--json", path, "--min-share", "0.95", send, f"{NET1}={MB}", f"{ETH0}={10 * MB}")
    done = run(*arguments, env={"LEAK_PORT": "29500"})
    found = receipt(path)
    assert (done.code, found["exit_code"]) == (5, 5), done.stderr
    assert found["backend_share"] == pytest.approx(1 / 11, rel=0.01)
    assert (found["proof"], found["findings"]) == ("measured", [])
    for node in found["nodes"]:
        assert exchanged(node) == {"net1": about(MB), "eth0": about(10 * MB)}


def test_a_ranks_traffic_leaves_the_agents_connections_out_in_each_attempt(tmp_path: Path) -> None:
    text = """
        import os, sys, time, torchnet
        time.sleep(1.5)  # heartbeats
        t = torchnet.traffic()
        print("peers", dict(t.peers), "others", t.others, flush=True)
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            time.sleep(1)
            sys.exit(os.environ["RANK"] == "1")
    """
    done = run("--nnodes", "3", "--max-restarts", "1", script(tmp_path, text))
    assert done.code == 0, done.stderr
    for rank in range(3):
        said = "peers {} others Bytes(sent_bytes=0, received_bytes=0)"
        assert lines(done.stdout, rank) == [said, said]


def test_a_gigabyte_from_a_stranger_changes_nothing(send: Path, tmp_path: Path) -> None:
    """Row 30: a data loader reads over eth0 from a server that is no worker."""
    path = tmp_path / "receipt.json"
    arguments = ("--json", path, "--min-share", "1", send, f"{NET1}={20 * MB}", f"{STRANGER}={1000 * MB}")
    with Job(*arguments) as job, stranger(job, 20001, 1000 * MB):
        done = job.finish()
    assert done.code == 0, done.stderr
    found = receipt(path)
    assert (found["backend_share"], found["proof"], found["findings"]) == (1.0, "measured", [])
    receiver, sender = found["nodes"]
    assert (receiver["other_bytes"], sender["other_bytes"]) == (0, about(1000 * MB))
    assert exchanged(sender) == {"net1": about(20 * MB)}
    assert exchanged(receiver) == {"net1": about(20 * MB)}
    assert sender["interfaces"]["eth0"]["received_bytes"] > 1000 * MB


def test_two_rails_carry_bytes_each(send: Path, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    done = run("--rails", "2", "--json", path, send, f"{NET1}={10 * MB}", f"{NET2}={10 * MB}")
    assert done.code == 0, done.stderr
    found = receipt(path)
    carried = about(20 * MB)
    assert found["rails"] == [
        {
            "interface": name,
            "attachment": f"default/{network}",
            "peer_bytes": carried,
            "share": pytest.approx(0.5),
        }
        for name, network in (("net1", "backend-network"), ("net2", "backend-network-2"))
    ]
    assert (found["backend_share"], found["findings"]) == (1.0, [])
    assert "rails: net1 20.00 MB (50 %), net2 20.00 MB (50 %)" in done.stderr
    assert "preflight: 4/4 paths at 9000 bytes" in done.stderr


def test_an_imbalance_of_the_rails_is_named(send: Path, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    done = run("--rails", "2", "--json", path, send, f"{NET1}={12 * MB}", f"{NET2}={2 * MB}")
    assert done.code == 0, done.stderr
    found = receipt(path)
    assert found["backend_share"] == 1.0
    (finding,) = found["findings"]
    assert re.fullmatch(r"rails are unequal: net2 carried 4\.00\d MB, net1 24\.0\d MB", finding)
    assert finding in done.stderr
