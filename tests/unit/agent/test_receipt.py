"""A worker's receipt: interfaces, peers and others apart, and and the bytes that cannot be attributed."""

from __future__ import annotations

import pytest

from tests.unit.agents import MB, counted, flow, rails, spec, table, traffic
from torchnet.agent.accounting import Flow
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


# Name: (bytes that connections told, in MB; what the interface counted; part of the finding).
SOURCES = {
    "equal": (100.0, 100.0, ""),
    "slack": (100.0, 100.4, ""),
    "2.3 % more": (100.0, 102.3, "4.600 MB on {} that are not TCP or UDP"),
    "half": (100.0, 50.0, "100.0 MB of connections over {}, which no interface counted"),
    "little": (0.0, 0.06, ""),
    "only others": (0.0, 5.0, "on {} that are not TCP or UDP"),
}


def test_what_went_twice_is_no_others_traffic() -> None:
    told = Flow(10 * MB, 10 * MB, resent_bytes=2 * MB, repeated_bytes=3 * MB)

    def findings(sent: int, received: int) -> list[str]:
        counters = {"net1": Counters(sent * MB, received * MB), "eth0": counted(10)}
        return list(
            worker(
                spec(),
                table(),
                rails(),
                traffic({(1, "net1"): told, (1, "eth0"): flow(10)}, counters),
                {},
                [],
            )["findings"]
        )

    assert findings(12, 13) == []
    assert [len(findings(14, 13)), len(findings(12, 15))] == [1, 1]


@pytest.mark.parametrize("interface", ["net1", "eth0"])
@pytest.mark.parametrize("case", SOURCES)
def test_unattributed_bytes_are_findings(case: str, interface: str) -> None:
    told, counted_megabytes, finding = SOURCES[case]
    other = "eth0" if interface == "net1" else "net1"
    counters = {interface: counted(counted_megabytes), other: counted(100)}
    seen = traffic({(1, interface): flow(told), (1, other): flow(100)}, counters)
    found = worker(spec(), table(), rails(), seen, {}, [])
    assert len(found["findings"]) == bool(finding), found["findings"]
    assert all(finding.format(interface) in text for text in found["findings"])
    assert (found["proof"] == "measured") == (not finding)


def test_on_loopback_there_is_nothing_to_compare() -> None:
    seen = traffic({}, {"lo": counted(50), "net1": counted(50)})
    found = worker(spec(loopback=True), table(), rails(), seen, {}, [])
    assert found["findings"] == []
    assert "lo" in found["interfaces"]
