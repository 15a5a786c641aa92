"""Raw TCP and latency between nodes with real links, and what planted faults do to them."""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

from tests.agents import in_nodes, wait
from tests.namespaces import ip, isolated
from torchnet.bench.worker import node_facts, pairs, tcp
from torchnet.bench.worker.rank_context import RankContext
from torchnet.bench.worker.result_messages import KINDS, Lacks, Latency, Message, Tcp
from torchnet.bench.worker.worker_config import WorkerConfig
from torchnet.config.fault_syntax import parse
from torchnet.linux import link_speed
from torchnet.local.topology import SandboxShape

pytestmark = [pytest.mark.quiet, pytest.mark.waits]

GBIT = 1_000_000_000
ABOVE = 1.3  # times a slow line's rate: a queue lets a burst through in one slice, and less in the next
SHORT = WorkerConfig(collectives=(), sizes=(), tcp_seconds=0.6, pings=50)
NET1 = {node: f"fcbb:0:800:ffff::{node + 1}" for node in range(4)}


def measured(
    folder: Path,
    shape: SandboxShape,
    plan: WorkerConfig = SHORT,
    *,
    nodes: int = 2,
    addresses: dict[int, dict[str, str]] | None = None,
    instead: dict[int, Callable[[], Any]] | None = None,
) -> list[Message]:
    """What rank 0 says, with one rank on each node; ``instead``: what a node does in place of measuring."""
    addresses = addresses or {node: {"net1": NET1[node]} for node in range(nodes)}

    def rank(node: int) -> int:
        store = TCPStore("172.30.1.1", 29500, nodes, is_master=node == 0)
        place = RankContext(node, nodes, node, nodes, 0, store, list(addresses[0]), addresses)
        with (folder / f"said-{node}").open("w") as file:

            def say(message: Message) -> None:
                kind = type(message).__name__.lower()
                file.write(json.dumps({"kind": kind, **asdict(message)}) + "\n")

            closed = (instead or {}).get(node, lambda: pairs.measure(plan, place, say))()
        (folder / f"closed-{node}").write_text(json.dumps(sorted(closed or ())))
        place.barrier()
        (folder / f"over-{node}").touch()
        if node == 0:  # the store goes with its master
            wait(lambda: all((folder / f"over-{other}").exists() for other in range(nodes)))
        return 0

    assert in_nodes([lambda node=node: rank(node) for node in range(nodes)], shape) == [0] * nodes  # type: ignore[misc]
    assert all(not (folder / f"said-{node}").read_text() for node in range(1, nodes))
    lines = [json.loads(line) for line in (folder / "said-0").read_text().splitlines()]
    return [KINDS[line.pop("kind")](**line) for line in lines]


def closed(folder: Path, nodes: int = 2) -> list[list[str]]:
    """The networks that did not carry everything, as each rank knows it."""
    return [json.loads((folder / f"closed-{node}").read_text()) for node in range(nodes)]


def rates(said: list[Message], *, both: bool = False) -> dict[tuple[int, int], float]:
    """The median of each direction, bytes per second."""
    found = [one for one in said if isinstance(one, Tcp) and one.both == both]
    return {(one.source, one.target): statistics.median(one.rates) for one in found}


def test_each_direction_both_at_once_and_the_latency_of_a_pair_are_said(tmp_path: Path) -> None:
    said = measured(tmp_path, SandboxShape(rate=GBIT), WorkerConfig(**{**asdict(SHORT), "streams": 2}))
    tcps = [one for one in said if isinstance(one, Tcp)]
    assert [(one.source, one.target, one.both) for one in tcps] == [
        (0, 1, False),
        (1, 0, False),
        (0, 1, True),
        (1, 0, True),
    ]
    assert {(one.network, one.streams, len(one.rates)) for one in tcps} == {("net1", 2, tcp.SLICES)}
    line = GBIT / 8 * 8928 / 9014
    for one in tcps:
        assert 0.5 * line < statistics.median(one.rates) < 1.05 * line
        assert one.segments > 0
        assert one.core is not None
        assert 0 < one.core <= 1.05
        assert one.busy is not None
        assert one.window_limited is not None
        assert 0 <= one.window_limited <= 1
    (trips,) = [one for one in said if isinstance(one, Latency)]
    assert (trips.source, trips.target, trips.bytes, trips.count) == (0, 1, 64, 50)
    assert closed(tmp_path) == [[], []]
    assert 0 < trips.least <= trips.p50 <= trips.p99 < 1


def test_one_direction_that_is_shaped_is_seen_in_this_direction_alone(tmp_path: Path) -> None:
    shape = SandboxShape(rate=GBIT, faults=(parse("node-1:net1:rate-out=100mbit"),))
    found = rates(measured(tmp_path, shape))
    assert found[0, 1] > 5 * found[1, 0]
    assert 0.5 < found[1, 0] / (100e6 / 8) < ABOVE


def test_a_node_with_a_tenth_of_the_rate_is_slow_both_ways_and_the_others_are_not(tmp_path: Path) -> None:
    shape = SandboxShape(rate=GBIT, faults=(parse("node-2:net1:rate=100mbit"),))
    found = rates(measured(tmp_path, shape, nodes=3))
    assert len(found) == 6
    for pair, rate in found.items():
        assert (rate < ABOVE * 100e6 / 8) == (2 in pair), found


def test_without_a_rate_a_fault_shapes_one_node_and_not_the_network_beside_it(tmp_path: Path) -> None:
    shape = SandboxShape(faults=(parse("node-0:net1:rate=50mbit"),))
    addresses = {node: {"net1": NET1[node], "eth0": f"172.30.1.{node + 1}"} for node in range(2)}
    said = measured(tmp_path, shape, addresses=addresses)
    found = [(one.network, statistics.median(one.rates)) for one in said if isinstance(one, Tcp)]
    assert [network for network, _ in found] == ["net1"] * 4 + ["eth0"] * 4
    assert all((rate < ABOVE * 50e6 / 8) == (network == "net1") for network, rate in found), found


def test_lost_packets_are_segments_that_are_sent_again(tmp_path: Path) -> None:
    healthy, lossy = tmp_path / "healthy", tmp_path / "lossy"
    healthy.mkdir()
    lossy.mkdir()
    plan = WorkerConfig(**{**asdict(SHORT), "pings": 0})
    shape = SandboxShape(rate=GBIT, faults=(parse("node-1:net1:loss=2"),))
    for folder, wanted in ((healthy, SandboxShape(rate=GBIT)), (lossy, shape)):
        said = measured(folder, wanted, plan)
        shares = [one.repeated / one.segments for one in said if isinstance(one, Tcp)]
        assert len(shares) == 4
        # Acknowledgements are lost as well, without a segment going again for it.
        assert all(0.005 < share < 0.1 for share in shares) == (folder is lossy), shares


def test_a_share_of_single_packets_is_lost_each_way(tmp_path: Path) -> None:
    count = 2000

    def node(rank: int) -> int:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            door.bind((NET1[rank], 7000))
            (tmp_path / f"there-{rank}").touch()
            while not (tmp_path / f"there-{1 - rank}").exists():
                time.sleep(0.01)
            for number in range(count):
                door.sendto(b"x", (NET1[1 - rank], 7000))
                if number % 20 == 0:
                    time.sleep(0.001)
            door.settimeout(1)
            came = 0
            try:
                while door.recv(10):
                    came += 1
            except TimeoutError:
                (tmp_path / f"came-{rank}").write_text(str(came))
        return 0

    fault = parse("node-1:net1:loss=20")
    assert in_nodes([lambda: node(0), lambda: node(1)], SandboxShape(faults=(fault,))) == [0, 0]
    for rank in range(2):
        # Six standard deviations of a binomial distribution around 1,600.
        assert abs(int((tmp_path / f"came-{rank}").read_text()) / count - 0.8) < 0.055


def test_a_peer_that_does_not_come_is_a_pair_that_lacks_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node 2's address is one that nobody has; the store it can be reached by is on the other network."""
    monkeypatch.setattr(tcp, "PATIENCE", 1.0)
    addresses = {0: {"net1": NET1[0]}, 1: {"net1": NET1[1]}, 2: {"net1": "fcbb:0:800:ffff::99"}}
    said = measured(tmp_path, SandboxShape(), nodes=3, addresses=addresses)
    assert set(rates(said)) == {(0, 1), (1, 0)}
    lacks = [one for one in said if isinstance(one, Lacks)]
    assert [one.what for one in lacks] == [
        "raw TCP between nodes 1 and 2 over net1",
        "raw TCP between nodes 2 and 0 over net1",
    ]
    assert "node 2: " in lacks[0].why
    assert "node 1: node 2 cannot listen" in lacks[0].why
    assert closed(tmp_path, 3) == [["net1"]] * 3, "also on the rank whose pairs were all right"


def test_packets_that_go_nowhere_are_a_pair_that_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "PATIENCE", 1.0)
    said = measured(tmp_path, SandboxShape(faults=(parse("node-1:net1:lossy"),)))
    (lacks,) = [one for one in said if isinstance(one, Lacks)]
    assert "node 0: timed out" in lacks.why
    assert "node 1: fcbb:0:800:ffff::1 did not connect within 1 s" in lacks.why
    assert not rates(said)


@pytest.mark.parametrize("lost", [True, False])
def test_a_network_that_is_compared_alone_is_tried_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    monkeypatch.setattr(tcp, "PATIENCE", 1.0)
    addresses = {node: {"eth0": f"172.30.1.{node + 1}", "net1": NET1[node]} for node in range(2)}
    shape = SandboxShape(faults=(parse("node-1:net1:lossy"),) if lost else ())
    plan = WorkerConfig(**{**asdict(SHORT), "pairs": "none", "pings": 0})
    assert measured(tmp_path, shape, plan, addresses=addresses) == []
    assert closed(tmp_path) == [["net1"] if lost else []] * 2


def test_a_peer_that_falls_silent_amid_a_measurement_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "PATIENCE", 1.0)
    said = measured(tmp_path, SandboxShape(rate=GBIT, faults=(parse("node-1:net1:lossy@2"),)))
    assert isinstance(said[-1], Lacks)
    assert not any(isinstance(one, Latency) for one in said)


@pytest.mark.parametrize("silent", [False, True], ids=["goes", "falls silent"])
def test_a_sender_that_sends_no_more_before_the_time_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(tcp, "PATIENCE", 1.0)

    def node(rank: int) -> int:
        if rank == 0:
            receiver = tcp.Receiver(NET1[0], 1)
            (tmp_path / "port~").write_text(str(receiver.port))
            (tmp_path / "port~").rename(tmp_path / "port")
            try:
                receiver.measure(NET1[1], 0.1, 1.5)
            except ConnectionError as error:
                (tmp_path / "said").write_text(str(error))
        else:
            while not (tmp_path / "port").exists():
                time.sleep(0.01)
            with tcp.connect(NET1[1], NET1[0], int((tmp_path / "port").read_text())) as connection:
                if silent:
                    connection.recv(1)  # until the other one hangs up
        return 0

    assert in_nodes([lambda: node(0), lambda: node(1)]) == [0, 0]
    assert (tmp_path / "said").read_text().startswith("1 of 1 streams from fcbb:0:800:ffff::2 ")


def test_ranks_on_one_node_have_no_pair(tmp_path: Path) -> None:
    (lacks,) = measured(tmp_path, SandboxShape(), nodes=1)
    assert lacks == Lacks("raw TCP", "all ranks are on one node")


def test_the_facts_of_a_node_are_those_of_its_namespace_and_a_veths_speed_is_none(tmp_path: Path) -> None:
    def node() -> int:
        found = node_facts.facts(0, ["net1", "eth0", "net7"])
        (tmp_path / "facts").write_text(json.dumps(asdict(found)))
        return 0

    assert in_nodes([node], SandboxShape(mtu=8000)) == [0]
    found = json.loads((tmp_path / "facts").read_text())
    assert found["name"] == "node-0"
    assert found["addresses"] == {"net1": NET1[0], "eth0": "172.30.1.1"}
    assert found["mtus"] == {"net1": 8000, "eth0": 1500}
    assert found["speeds"] == {}  # a veth, and a macvlan on one: both say 10 Gbit/s
    assert len(found["sysctls"]["net.ipv4.tcp_rmem"].split(" ")) == 3
    assert found["sysctls"]["net.ipv4.tcp_timestamps"] in ("0", "1", "2")
    assert found["cores"] > 0
    assert found["memory"] > 1 << 20
    assert found["cpu"]
    assert found["kernel"]


@isolated
def test_a_speed_is_what_the_driver_tells_and_that_of_a_veth_tells_nothing() -> None:
    ip("link add near0 type veth peer name far0")
    ip("link add above0 link near0 type macvlan mode bridge")
    ip("link add name team0 type bridge")  # says what its fastest port says, and not over a twisted pair
    ip("link set far0 master team0")
    for name in ("near0", "far0", "above0", "team0"):
        ip(f"link set {name} up")
    assert [link_speed.speed(name) for name in ("near0", "far0", "above0")] == [None] * 3
    assert link_speed.speed("team0") == 10_000_000_000
