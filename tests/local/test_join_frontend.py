"""A rendezvous over the frontend: rank 0's backend address is not known before, and the training runs over net1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.agents import Log, events, in_nodes, spec, status
from tests.jobs import script
from torchnet.agent import agent, discovery, join
from torchnet.agent.rendezvous import Endpoint
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError
from torchnet.local import topology
from torchnet.network.address_sources import MultusStatus
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow

pytestmark = pytest.mark.waits

FRONTEND = Endpoint(topology.node(0, 1).frontend.address, 29777)
SCRIPT = """
import os, socket, sys, time
if os.environ["RANK"] == "0":
    server = socket.create_server((os.environ["MASTER_ADDR"], 7000), family=socket.AF_INET6)
    connection, _ = server.accept()
    count = 0
    while data := connection.recv(1 << 16):
        count += len(data)
else:
    for _ in range(200):
        try:
            connection = socket.create_connection((os.environ["MASTER_ADDR"], 7000))
            break
        except OSError:
            time.sleep(0.05)
    connection.sendall(bytes(1_000_000))
"""


class Own(MultusStatus):
    """Nobody has told this worker where rank 0 is."""

    def rank0(self) -> tuple[str, ...]:
        raise NetworkError("unknown")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return script(tmp_path, SCRIPT).parent


def run(folder: Path, rank: int, node: int, endpoint: Endpoint = FRONTEND) -> int:
    """Run rank ``rank`` in ``node``, with the attachments that Multus reports for that node's pod."""
    one = spec(folder, rank, 2, start_timeout=8.0)
    source = Own(status(node), status(node), one.attachments)
    return agent.run(
        one, source, lambda _loop, _worker: Log(folder / f"node-{rank}.events"), frontend=endpoint
    )


def test_the_table_and_the_training_use_the_backend(folder: Path) -> None:
    assert in_nodes([lambda: run(folder, 0, 0), lambda: run(folder, 1, 1)]) == [0, 0]
    (receipt,) = (event["receipt"] for event in events(folder, "node-0", "receipt"))
    assert (receipt["exit_code"], receipt["backend_share"], receipt["proof"]) == (0, 1.0, "measured")
    assert receipt["rails"][0]["peer_bytes"] > 2_000_000
    assert {peer["interface"] for node in receipt["nodes"] for peer in node["peers"]} == {"net1"}
    for node in receipt["nodes"]:  # eth0 carries the heartbeats
        assert 0 < node["interfaces"]["eth0"]["sent_bytes"] < 100_000
    assert any("2/2 paths at 9000 bytes" in event["text"] for event in events(folder, "node-0", "phase"))


def test_a_claimed_address_that_is_not_the_workers_fails_the_preflight(folder: Path) -> None:
    """Over the frontend anybody with the token can join with any addresses: only the preflight proves them."""

    def liar() -> int:
        def claimed(own: AgentSpec, rails: tuple[Rail, ...]) -> PeerRow:
            row = discovery.own_row(own, rails)
            return replace(row, rails=(PeerRail("net1", "fcbb:0:800:ffff::77", 9000),))

        vars(join)["own_row"] = claimed  # in this process alone
        return run(folder, 1, 1)

    assert in_nodes([lambda: run(folder, 0, 0), liar]) == [4, 4]
    (failure,) = events(folder, "node-0", "failure")
    assert "fcbb:0:800:ffff::77" in failure["text"]


def test_a_name_without_an_address_is_an_error_that_names_the_endpoint(folder: Path) -> None:
    endpoint = Endpoint("rank0.invalid", 29777)
    assert in_nodes([lambda: 0, lambda: run(folder, 1, 1, endpoint)]) == [0, 124]
    (failure,) = events(folder, "node-1", "failure")
    assert "rank0.invalid:29777" in failure["text"]
