"""The receipt of witnesses: which bytes are with peers, and what lowers or raises the bounds of the share."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from torchnet.agent.accounting import Flow
from torchnet.linux.protocol_counters import ProtocolCounters
from torchnet.linux.rtnetlink import Counters
from torchnet.receipt.receipt_model import Receipt
from torchnet.witness.host_receipt import receipt_of
from torchnet.witness.host_record import ConnectionGroup, HostRecord, RemoteFlow

MB = 1_000_000
BACKEND, FRONTEND, STORAGE = "10.10.0.{}", "192.168.7.{}", "198.51.100.1"


def flow(owner: Any, remote: str, interface: str, sent: int, received: int = 0) -> RemoteFlow:
    return RemoteFlow(owner, remote, interface, Flow(sent, received))


def host(number: int, *flows: RemoteFlow, **more: Any) -> HostRecord:
    """A record whose interface counters say what its connections say."""
    carried = {"ens5": [0, 0], "eth0": [0, 0], "macvlan0": [0, 0]}
    for one in flows:
        carried[one.interface][0] += one.flow.sent_bytes
        carried[one.interface][1] += one.flow.received_bytes
    values: dict[str, Any] = {
        "networks": ("host:ens5",),
        "backend": ("ens5",),
        "prefixes": ("10.10.0.0/16",),
        "addresses": {"ens5": (BACKEND.format(number),), "eth0": (FRONTEND.format(number),)},
        "counters": {name: Counters(counts[0], counts[1]) for name, counts in carried.items()},
        "protocols": ProtocolCounters(0, 0, 0, 0, 0),
        "flows": flows,
    }
    return HostRecord(f"host-{number}", "torchrun", 0, 1e9, 1e9 + 5, **{**values, **more})


def pair(*flows: RemoteFlow, **more: Any) -> list[HostRecord]:
    """Two hosts: the first with these flows, the second with its half of a clean job, and of the first's flows."""
    there = {BACKEND.format(2): BACKEND.format(1), FRONTEND.format(2): FRONTEND.format(1)}
    halves = [
        flow("job", there[one.remote], one.interface, one.flow.received_bytes, one.flow.sent_bytes)
        for one in flows
        if one.owner == "job" and one.remote in there
    ]
    return [
        host(1, flow("job", BACKEND.format(2), "ens5", 8 * MB), *flows, **more),
        host(2, flow("job", BACKEND.format(1), "ens5", 0, 8 * MB), *halves),
    ]


def share(records: list[HostRecord]) -> tuple[float | None, float | None, str]:
    receipt = receipt_of(records)
    Receipt.model_validate(receipt)  # whatever happened, it is a receipt
    return receipt["backend_share"], receipt["backend_share_high"], receipt["proof"]


def test_two_hosts_that_used_the_backend_alone() -> None:
    receipt = receipt_of(pair(flow("job", STORAGE, "eth0", MB, 50 * MB)))
    assert (receipt["backend_share"], receipt["backend_share_high"], receipt["proof"]) == (1, 1, "measured")
    assert [node["other_bytes"] for node in receipt["nodes"]] == [51 * MB, 0]
    assert receipt["rails"][0]["peer_bytes"] == 16 * MB


def test_a_leak_is_a_peers_bytes_over_another_interface() -> None:
    group = ConnectionGroup(7, "python train.py", FRONTEND.format(2), "eth0", 5000, False, 1, 4 * MB, 0)
    records = pair(flow("job", FRONTEND.format(2), "eth0", 2 * MB), connections=(group,))
    assert share(records) == (0.8, 0.8, "measured")
    (finding,) = receipt_of(records)["findings"]
    assert all(
        word in finding for word in ("python train.py", "pid 7", FRONTEND.format(2), "eth0", "4.000 MB")
    )


def test_one_host_alone_does_not_know_whose_other_addresses_are() -> None:
    (record, _) = pair(flow("job", FRONTEND.format(2), "eth0", 2 * MB))
    assert share([record]) == (0.8, 1.0, "inferred")
    named = replace(record, peers={FRONTEND.format(2): "host-2"})
    assert share([named]) == (0.8, 0.8, "inferred")
    # That host has other addresses, too.
    stranger = flow("job", STORAGE, "eth0", 8 * MB)
    more = replace(
        named,
        flows=(*named.flows, stranger),
        counters={"ens5": Counters(8 * MB, 0), "eth0": Counters(10 * MB, 0)},
    )
    assert share([more]) == (8 / 18 // 1e-6 / 1e6, 0.8, "inferred")
    assert share([replace(record, networks=(), backend=(), prefixes=())])[2] == "unknown"


def test_what_is_unknown_never_raises_the_lower_bound() -> None:
    frontend, backend = FRONTEND.format(2), BACKEND.format(2)
    assert share(pair(flow("unknown", frontend, "eth0", 4 * MB))) == (0.8, 1.0, "inferred")
    low, high, proof = share(
        pair(flow("job", frontend, "eth0", 2 * MB), flow("unknown", backend, "ens5", 4 * MB))
    )
    assert (low, proof) == (0.8, "inferred")
    assert high == pytest.approx(20 / 24, abs=1e-6)
    # Other processes' connections are not the command's, and with strangers they are no matter at all.
    assert share(pair(flow("other", "", "eth0", 90 * MB))) == (1, 1, "measured")
    assert share(pair(flow("unknown", STORAGE, "eth0", 90 * MB))) == (1, 1, "measured")
    # What the interface counted beyond its connections could have been anything.
    low, high, proof = share(pair(counters={"ens5": Counters(8 * MB, 0), "eth0": Counters(4 * MB, 0)}))
    assert low == pytest.approx(0.8, abs=0.01)
    assert (high, proof) == (1.0, "inferred")


def test_udp_in_the_shadow_of_other_traffic_lowers_the_bound() -> None:
    """20 MB beside a gigabyte of somebody else's TCP: only the count of datagrams tells them from headers."""
    flows = flow("job", BACKEND.format(2), "ens5", 8 * MB), flow("other", "", "eth0", 1000 * MB)
    counted = {"ens5": Counters(8 * MB, 0), "eth0": Counters(1020 * MB, 0, 20_000, 0)}
    udp = ProtocolCounters(15_000, 0, 0, 0, 0)
    low, high, proof = share([host(1, *flows, counters=counted, protocols=udp), pair()[1]])
    assert low is not None
    assert low < 16 / 35
    assert (high, proof) == (1.0, "inferred")


def test_fewer_bytes_on_the_interface_than_on_its_connections_took_another_way() -> None:
    low, high, proof = share(pair(counters={"ens5": Counters(MB, 0), "eth0": Counters(8 * MB, 0)}))
    assert low is not None
    assert low < 0.6
    assert (high, proof) == (1.0, "inferred")


def test_rdma_enters_the_upper_bound_alone() -> None:
    leak = flow("job", FRONTEND.format(2), "eth0", 2 * MB)
    low, high, proof = share(pair(leak, rdma={"mlx5_0": 80 * MB}, rdma_backend=("mlx5_0",)))
    assert (low, high, proof) == (0.8, 0.96, "inferred")
    assert share(pair(rdma={"mlx5_9": 16 * MB}))[:2] == (0.5, 1.0)
    assert share(pair(rdma={"mlx5_0": None}, rdma_backend=("mlx5_0",)))[2] == "unknown"


def test_an_unused_device_is_a_finding() -> None:
    clean = flow("job", BACKEND.format(2), "ens5", 90 * MB)
    unused = receipt_of(pair(clean, rdma={"mlx5_0": 500}, rdma_backend=("mlx5_0",)))
    assert [finding for finding in unused["findings"] if "mlx5_0" in finding] != []
    used = receipt_of(pair(clean, rdma={"mlx5_0": 900 * MB}, rdma_backend=("mlx5_0",)))
    assert used["findings"] == []
    closed = receipt_of(pair(clean, rdma_closed=("mlx5_0", "mlx5_9"), rdma_backend=("mlx5_0",)))
    (finding,) = closed["findings"]
    assert "mlx5_0" in finding
    assert "/dev/infiniband" in finding


def test_incomplete_counts_and_hosts_without_a_receipt_are_inferred() -> None:
    assert share(pair(complete=False))[2] == "inferred"
    # Perhaps another host of the job, perhaps storage.
    third, leak = (
        flow("job", BACKEND.format(3), "ens5", 4 * MB),
        flow("job", FRONTEND.format(2), "eth0", 2 * MB),
    )
    assert share(pair(third)) == (1, 1, "inferred")
    assert share(pair(third, leak)) == (0.8, 20 / 24 // -1e-6 / -1e6, "inferred")
    # Bytes with more hosts than are listed by address may have been with any.
    assert share(pair(flow("job", "", "eth0", 4 * MB))) == (0.8, 1, "inferred")


def test_files_of_different_times_are_not_of_one_job() -> None:
    one, two = pair()
    for seconds, proof in ((30, "measured"), (3600, "inferred")):
        later = replace(two, began=two.began + seconds, ended=two.ended + seconds)
        assert share([one, later]) == (1, 1, proof)


def test_nccl_that_moved_nothing_over_tcp_used_something_else() -> None:
    little = flow("job", BACKEND.format(2), "ens5", 3000)
    for size, rdma, proof in (
        (3000, {}, "unknown"),
        (8 * MB, {}, "measured"),
        (3000, {"mlx5_0": 8 * MB}, "measured"),
    ):
        one, two = (
            host(1, replace(little, flow=Flow(size, 0)), nccl=True, rdma=rdma, rdma_backend=tuple(rdma)),
            host(2, flow("job", BACKEND.format(1), "ens5", 0, size)),
        )
        assert share([one, two])[2] == proof


def test_a_rail_without_a_network_of_its_own_is_known_by_the_other_hosts_addresses() -> None:
    one, two = (replace(record, prefixes=(f"10.10.0.{record.host[-1]}/32",)) for record in pair())
    assert share([one, two]) == (1, 1, "measured")


def test_rails_are_matched_by_number_not_by_name() -> None:
    one, two = pair(flow("job", FRONTEND.format(2), "eth0", 2 * MB))
    other = replace(
        two,
        backend=("eth0",),
        addresses={"eth0": (BACKEND.format(2),), "ens5": (FRONTEND.format(2),)},
        flows=(
            flow("job", BACKEND.format(1), "eth0", 0, 8 * MB),
            flow("job", FRONTEND.format(1), "ens5", 0, 2 * MB),
        ),
        counters={"eth0": Counters(0, 8 * MB), "ens5": Counters(0, 2 * MB)},
    )
    receipt = receipt_of([one, other])
    assert receipt["backend_share"] == 0.8
    assert [rail["peer_bytes"] for rail in receipt["rails"]] == [16 * MB]


def test_the_first_failing_command_is_the_result() -> None:
    one, two = pair()
    receipt = receipt_of([one, replace(two, exit_code=3)])
    assert (receipt["exit_code"], [rank["exit_code"] for rank in receipt["ranks"]]) == (3, [0, 3])


def test_records_survive_json() -> None:
    group = ConnectionGroup(7, "python train.py", FRONTEND.format(2), "eth0", 5000, False, 1, 4 * MB, 0)
    record = pair(connections=(group,), rdma={"mlx5_0": None}, peers={"10.10.0.2": "b"})[0]
    assert HostRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    value = record.to_json()
    assert HostRecord.from_json({**value, "of a later version": 1}) == record
    broken: list[Any] = [None, [], {}, {"host": "a"}, {**value, "flows": [1]}, {**value, "rdma": {"a": "b"}}]
    broken += [{**value, name: wrong} for name in value for wrong in ({"a": object()}, 1 + 1j)]
    for wrong in broken:
        with pytest.raises(ValueError, match="is not a record"):
            HostRecord.from_json(wrong)


def test_nothing_and_what_may_be_nothing() -> None:
    assert share([host(1)]) == (None, None, "unknown")
    assert share([host(1, rdma={"mlx5_0": 5 * MB}, rdma_backend=("mlx5_0",))]) == (0.0, 1.0, "inferred")


def test_the_other_end_names_the_owner_of_a_short_connection() -> None:
    """Not of a connection that is longer than the other end's, or that only one host saw."""
    frontend = FRONTEND.format(2)
    one = host(1, flow("job", BACKEND.format(2), "ens5", 8 * MB), flow("unknown", frontend, "eth0", 2 * MB))
    two = host(
        2,
        flow("job", BACKEND.format(1), "ens5", 0, 8 * MB),
        flow("job", FRONTEND.format(1), "eth0", 0, 2 * MB),
    )
    assert share([one, two]) == (0.8, 0.8, "measured")
    longer = replace(
        one,
        flows=(one.flows[0], flow("unknown", frontend, "eth0", 3 * MB)),
        counters={"ens5": Counters(8 * MB, 0), "eth0": Counters(3 * MB, 0)},
    )
    low, high, _ = share([longer, two])
    assert low == pytest.approx(16 / 21, abs=1e-5)
    assert high == 0.8
    unseen = replace(two, flows=two.flows[:1], counters={"ens5": Counters(0, 8 * MB), "eth0": Counters(0, 0)})
    low, high, proof = share([one, unseen])
    assert low == pytest.approx(16 / 18, abs=1e-5)
    assert (high, proof) == (1.0, "inferred")
    # A stranger's connection to another address of the host is not claimed with the command's bytes.
    second = "192.168.8.2"
    both = replace(
        two,
        addresses={**two.addresses, "eth0": (FRONTEND.format(2), second)},
        flows=(two.flows[0], flow("job", FRONTEND.format(1), "eth0", 0, 2 * MB)),
    )
    mine = (one.flows[0], flow("job", frontend, "eth0", 2 * MB), flow("unknown", second, "eth0", 2 * MB))
    strange = replace(one, flows=mine, counters={"ens5": Counters(8 * MB, 0), "eth0": Counters(4 * MB, 0)})
    low, high, _ = share([strange, both])
    assert low == pytest.approx(16 / 22, abs=1e-5)
    assert high == 0.8
    # A receipt that is merged once more gives the same.
    nodes = receipt_of([one, two])["nodes"]
    again = receipt_of([HostRecord.from_json(node["witness"]) for node in nodes])
    assert again["backend_share"] == 0.8


def test_a_connection_with_one_end_on_the_backend_may_have_used_either() -> None:
    """Routing decides, not the addresses: the frontend's interface counted nothing here, and the backend's all."""
    crossed = flow("job", BACKEND.format(2), "eth0", 2 * MB)
    counted = {"ens5": Counters(10 * MB, 0), "eth0": Counters(0, 0)}
    one, two = pair(crossed, counters=counted)
    two = replace(two, flows=(*two.flows[:1], flow("job", FRONTEND.format(1), "ens5", 0, 2 * MB)))
    two = replace(two, counters={"ens5": Counters(0, 10 * MB), "eth0": Counters(0, 0)})
    assert share([one, two]) == (1.0, 1.0, "measured")


def test_what_lies_on_a_rail_is_the_backend_and_what_vanished_is_unknown() -> None:
    on_top = flow("job", BACKEND.format(2), "macvlan0", 2 * MB)
    counted = {
        "ens5": Counters(10 * MB, 0),
        "macvlan0": Counters(2 * MB, 0, lower="ens5"),
        "eth0": Counters(0, 0),
    }
    one, two = host(1, flow("job", BACKEND.format(2), "ens5", 8 * MB), on_top, counters=counted), pair()[1]
    two = replace(
        two,
        flows=(flow("job", BACKEND.format(1), "ens5", 0, 10 * MB),),
        counters={"ens5": Counters(0, 10 * MB), "eth0": Counters(0, 0)},
    )
    assert share([one, two]) == (1.0, 1.0, "measured")
    assert share([replace(one, vanished=("eth0",)), two]) == (None, None, "unknown")
