"""A worker's receipt: interfaces, peers and others apart, and every disagreement of the two witnesses named."""

from __future__ import annotations

import pytest

from tests.unit.agents import MB, counted, flow, rails, spec, table, traffic
from torchnet.agent.accounting import HEADER_BYTES, Flow
from torchnet.agent.link_monitor import LinkFlap
from torchnet.agent.rdma_counters import RdmaDevice
from torchnet.agent.receipt import worker
from torchnet.agent.transports import Transports
from torchnet.linux.rtnetlink import Counters


def test_a_worker_tells_interfaces_peers_and_others_apart() -> None:
    seen = traffic(
        {(1, "net1"): flow(20), (1, "eth0"): flow(1)},
        {"lo": Counters(5, 5), "eth0": counted(4), "net1": counted(20), "docker0": Counters(1, 2)},
        others={"eth0": flow(3)},
        control={"net1": Flow(1000, 2000)},
    )
    found = worker(
        spec(),
        table(),
        rails(),
        seen,
        {"0": 0, "1": 3},
        [LinkFlap("net1", 1.5, 2.5)],
        Transports((RdmaDevice("mlx5_0", True, True, True, 70, 7, "counters"),)),
    )
    assert list(found["interfaces"]) == ["docker0", "eth0", "net1"]
    assert {name: one["role"] for name, one in found["interfaces"].items()} == {
        "docker0": "other",
        "eth0": "frontend",
        "net1": "backend",
    }
    assert (found["peer_bytes"], found["other_bytes"]) == (42 * MB, 6 * MB)
    assert [(p["node"], p["interface"], p["sent_bytes"]) for p in found["peers"]] == [
        ("node-1", "eth0", MB),
        ("node-1", "net1", 20 * MB),
    ]
    assert (found["proof"], found["findings"]) == ("measured", [])
    assert found["flaps"] == [{"interface": "net1", "at_s": 1.5, "duration_s": 2.5}]
    assert (found["rdma_bytes"], found["rdma_stray"]) == ({"mlx5_0": 77}, {})
    assert found["codes"] == {"0": 0, "1": 3}


def test_a_worker_whose_processes_never_started_knows_nothing() -> None:
    found = worker(spec(), table(), rails(), None, {}, [])
    assert (found["proof"], found["peer_bytes"], found["interfaces"]) == ("unknown", 0, {})
    assert found["findings"] == []


def test_a_peer_beyond_the_table_keeps_its_number() -> None:
    found = worker(spec(), table(), rails(), traffic({(7, "net1"): flow(1)}, {"net1": counted(1)}), {}, [])
    assert found["peers"][0]["node"] == "7"


# Name: (bytes that connections told, in MB, with segments; what the interface counted; finding).
WITNESSES = {
    "equal": (100.0, 0, 100.0, ""),
    "headers": (100.0, 70_000, 100.0 + 70_000 * HEADER_BYTES / MB, ""),
    "headers left out by the card": (100.0, 70_000, 100.0, ""),
    "1.9 % more": (100.0, 0, 101.9, ""),
    "1.9 % less": (100.0, 0, 98.1, ""),
    "2.3 % more": (100.0, 0, 102.3, "its TCP connections only 100000000: the rest is other traffic"),
    "2.3 % less": (100.0, 0, 97.7, "the interface only 97700000"),
    "half": (100.0, 0, 50.0, "they used another interface"),
    "little": (0.0, 0, 0.12, ""),
    "only others": (0.0, 0, 5.0, "the rest is other traffic"),
}


@pytest.mark.parametrize(
    ("sent", "received", "words"),
    [(12.0, 13.0, []), (14.3, 13.0, ["sent"]), (12.0, 14.3, ["received"])],
)
def test_what_went_twice_is_no_others_traffic(sent: float, received: float, words: list[str]) -> None:
    told = Flow(10 * MB, 10 * MB, resent_bytes=2 * MB, repeated_bytes=3 * MB)
    counters = {"net1": Counters(int(sent * MB), int(received * MB)), "eth0": Counters(0, 0)}
    found = worker(spec(), table(), rails(), traffic({(1, "net1"): told}, counters), {}, [])["findings"]
    assert [text.partition(" bytes")[0] for text in found] == [
        f"node-0: net1 {word} 14300000" for word in words
    ]


@pytest.mark.parametrize("interface", ["net1", "eth0"])
@pytest.mark.parametrize("case", WITNESSES)
def test_witnesses_that_disagree_by_more_than_two_percent(case: str, interface: str) -> None:
    told, segments, counted_megabytes, finding = WITNESSES[case]
    counters = {"net1": Counters(0, 0), "eth0": Counters(0, 0), interface: counted(counted_megabytes)}
    seen = traffic({(1, interface): flow(told, segments)}, counters)
    found = worker(spec(), table(), rails(), seen, {}, [])["findings"]
    assert len(found) == (2 if finding else 0), found  # sent, and received
    for text, word in zip(found, ("sent", "received"), strict=False):
        assert text.startswith("node-0: ")
        assert interface in text
        assert word in text
        assert finding in text


def test_on_loopback_there_is_nothing_to_compare() -> None:
    seen = traffic({}, {"lo": counted(50), "net1": counted(50)})
    found = worker(spec(loopback=True), table(), rails(), seen, {}, [])
    assert found["findings"] == []
    assert "lo" in found["interfaces"]
