"""The job's receipt: shares only where bytes are behind them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.agents import MB, NONE, counted, flow, made, rails, spec, table, traffic, whole
from torchnet.agent.events import Failure
from torchnet.agent.receipt import summary, worker
from torchnet.linux.protocol_counters import ProtocolCounters
from torchnet.linux.rtnetlink import Counters
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable
from torchnet.receipt.receipt_model import Receipt


def test_the_share_is_the_backends_part_of_what_peers_exchanged() -> None:
    found = whole(
        made(0, {(1, "net1"): flow(90), (1, "eth0"): flow(10)}),
        made(1, {(0, "net1"): flow(90), (0, "eth0"): flow(10)}),
    )
    assert (found["backend_share"], found["proof"]) == (0.9, "measured")
    assert found["rails"] == [
        {"interface": "net1", "attachment": "default/backend-0", "peer_bytes": 360 * MB, "share": 1.0}
    ]
    assert (found["exit_code"], found["reason"], found["failure"]) == (0, "done", None)
    assert found["started"] == "2001-09-09T01:46:40Z"
    assert found["duration_s"] == 12.346
    assert [(r["rank"], r["local_rank"], r["node"], r["exit_code"]) for r in found["ranks"]] == [
        (0, 0, "node-0", 0),
        (1, 1, "node-0", 0),
        (2, 0, "node-1", 0),
        (3, 1, "node-1", 0),
    ]
    assert found["findings"] == []
    assert "codes" not in found["nodes"][0]


def test_others_bytes_do_not_count() -> None:
    one = made(0, {(1, "net1"): flow(5)})
    one["other_bytes"] = 10**12
    assert whole(one, made(1, {(0, "net1"): flow(5)}))["backend_share"] == 1


UNKNOWN: dict[str, tuple[dict[str, Any], int, str]] = {
    "loopback": ({"loopback": True}, 2, "loopback: no network was used"),
    "one node": ({"nnodes": 1}, 1, "single node: no network traffic"),
    "no receipt": ({}, 0, "no worker left a receipt"),
    "nothing exchanged": ({}, 3, "the workers exchanged nothing"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_share_is_null_and_below_any_threshold(case: str) -> None:
    fields, kind, why = UNKNOWN[case]
    receipts = {
        0: [],
        1: [made(0, {})],
        2: [made(0, {(1, "net1"): flow(5)}), made(1, {})],
        3: [made(0, {}), made(1, {})],
    }[kind]
    found = whole(*receipts, **fields)
    assert (found["backend_share"], found["proof"], found["proof_reason"]) == (None, "unknown", why)
    assert found["exit_code"] == 0
    below = whole(*receipts, **fields, min_share=0.0)
    assert (below["exit_code"], below["min_share_verdict"]) == (5, "not-proven")
    assert why in below["reason"]


def test_a_share_below_the_threshold_is_code_5_and_a_failure_goes_before_it() -> None:
    receipts = [
        made(0, {(1, "net1"): flow(9), (1, "eth0"): flow(1)}),
        made(1, {(0, "net1"): flow(9), (0, "eth0"): flow(1)}),
    ]
    enough = whole(*receipts, min_share=0.9)
    assert (enough["exit_code"], enough["min_share_verdict"]) == (0, "reached")
    below = whole(*receipts, min_share=0.9001)
    assert (below["exit_code"], below["min_share"], below["min_share_verdict"]) == (5, 0.9001, "missed")
    assert "0.9000" in below["reason"]
    failure = Failure("script", "rank 3 on node-1 exited with code 42\nand more", 42, rank=3, node="node-1")
    failed = whole(*receipts, min_share=0.9001, failure=failure, restarts=2)
    assert (failed["exit_code"], failed["reason"]) == (42, "rank 3 on node-1 exited with code 42")
    assert failed["failure"]["text"].endswith("and more")
    assert failed["restarts"] == 2


def test_what_was_not_seen_to_the_end_is_inferred() -> None:
    full, part = made(0, {(1, "net1"): flow(5)}), made(1, {(0, "net1"): flow(5)}, complete=False)
    assert whole(full, part)["proof"] == "measured"  # the interfaces counted nothing else
    missing = whole(full)
    assert (missing["backend_share"], missing["proof"]) == (1, "inferred")
    assert missing["findings"] == ["1 of 2 workers left no receipt"]
    assert [rank["rank"] for rank in missing["ranks"]] == [0, 1]


@pytest.mark.parametrize(
    ("counts", "bounds", "verdict"),
    [
        ({"complete": False}, (0.833333, 1.0), "not-proven"),
        ({"protocols": None}, (0.833333, 1.0), "not-proven"),
        ({"protocols": ProtocolCounters(0, 0, 0, 0, 1)}, (0.833333, 1.0), "not-proven"),
        ({"others": {"eth0": flow(2)}}, (1.0, 1.0), "reached"),
    ],
)
def test_what_may_have_left_the_backend_widens_the_bounds(
    counts: dict[str, Any], bounds: tuple[float, float], verdict: str
) -> None:
    counters = {"net1": counted(5), "eth0": counted(2)}
    seen = traffic({(1, "net1"): flow(5)}, counters, **{"protocols": NONE, **counts})
    one = worker(spec(0), table(), rails(), seen, {}, [])
    found = whole(one, made(1, {(0, "net1"): flow(5)}), min_share=0.95)
    assert (found["backend_share"], found["backend_share_high"]) == bounds
    assert (found["min_share_verdict"], found["exit_code"]) == (verdict, 0 if verdict == "reached" else 5)
    assert found["unattributed_bytes"] == sum(one["bytes"] for one in found["nodes"][0]["unattributed"])
    assert bool(found["unattributed_bytes"]) == (verdict != "reached")


def test_the_reason_is_a_doubt_that_moved_a_bound() -> None:
    """UDP over the backend raises the upper bound alone, which is 100 % anyway."""
    counters = {"net1": counted(40), "eth0": counted(2)}
    udp = ProtocolCounters(1000, 1000, 0, 0, 0)
    seen = traffic({(1, "net1"): flow(5)}, counters, protocols=udp)
    found = whole(worker(spec(0), table(), rails(), seen, {}, []), made(1, {(0, "net1"): flow(5)}))
    sums = {one["interface"]: one["bytes"] for one in found["nodes"][0]["unattributed"]}
    assert sums["net1"] > sums["eth0"] > 0
    assert found["backend_share_high"] == 1
    assert re.fullmatch(r"up to \S+ MB of UDP on eth0", found["proof_reason"])


def test_bytes_that_only_one_of_two_workers_counted_lower_the_lower_bound() -> None:
    """As behind the address of a Kubernetes Service: the client takes its peer for a host outside the job."""
    counters = {"net1": counted(5), "eth0": counted(5)}
    seen = traffic({(1, "net1"): flow(5)}, counters, others={"eth0": flow(5)})
    one = worker(spec(0), table(), rails(), seen, {}, [])
    found = whole(one, made(1, {(0, "net1"): flow(5), (0, "eth0"): flow(5)}))
    assert (found["backend_share"], found["backend_share_high"], found["proof"]) == (
        0.5,
        0.666667,
        "inferred",
    )


def test_a_rail_is_known_by_its_own_workers_receipt() -> None:
    """One worker's rail has the name of the other's frontend."""
    one = made(0, {(1, "eth0"): flow(5)})
    two = worker(
        spec(1),
        table(),
        (replace(rails()[0], interface="eth0"),),
        traffic({(0, "net1"): flow(5)}, {"net1": counted(5), "eth0": counted(0)}, protocols=NONE),
        {},
        [],
    )
    assert whole(one, two)["backend_share"] == 0


def test_unequal_rails_are_named() -> None:
    peers = {(1, "net1"): flow(10), (1, "net2"): flow(4)}
    back = {(0, "net1"): flow(10), (0, "net2"): flow(4)}
    found = whole(made(0, peers, count=2), made(1, back, count=2))
    assert [(r["interface"], r["peer_bytes"], r["share"]) for r in found["rails"]] == [
        ("net1", 40 * MB, 0.714286),
        ("net2", 16 * MB, 0.285714),
    ]
    assert found["findings"] == ["rails are unequal: net2 carried 16.00 MB, net1 40.00 MB"]
    assert found["backend_share"] == 1
    even = {(1, "net1"): flow(10), (1, "net2"): flow(6)}
    assert whole(made(0, even, count=2), made(1, {}, count=2))["findings"] == []
    little = {(1, "net1"): flow(0.4), (1, "net2"): flow(0)}  # the store's alone
    assert whole(made(0, little, count=2), made(1, {}, count=2))["findings"] == []


def test_receipts_come_in_any_order() -> None:
    found = whole(made(1, {(0, "net1"): flow(1)}), made(0, {(1, "net1"): flow(1)}))
    assert [node["node"] for node in found["nodes"]] == ["node-0", "node-1"]
    assert [rank["rank"] for rank in found["ranks"]] == [0, 1, 2, 3]


def large(
    count: int, *, other_code: int = 0, failure: Failure | None = None, lost: int = 0, **fields: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job's receipt of ``count`` workers that exchange bytes with each other, and a worker's part of it.

    Args:
        other_code: of all ranks but 9, which exits with 1.
        lost: bytes that connections took with them whose counts were lost, on each worker.
    """
    names = tuple(
        PeerRow(n, f"train-w-0-{n}-x7k2p", "", (PeerRail("net1", f"fcbb:0:800:ffff::{n + 1:x}", 9000),))
        for n in range(count)
    )
    known = spec(nnodes=count, nproc=8, **fields)
    parts = []
    for rank in range(count):
        one = replace(known, node_rank=rank, name=names[rank].name)
        flows = {(n, "net1"): flow(n + rank + 1) for n in range(count) if n != rank} | {
            ((rank + step) % count, "eth0"): flow(1) for step in (1, -1)
        }
        on_net1 = sum(one.sent_bytes for (_, name), one in flows.items() if name == "net1")
        seen = {"net1": Counters(on_net1, on_net1), "eth0": Counters(2 * MB + lost, 2 * MB + lost)}
        codes = {str(r): 1 if r == 9 else other_code for r in one.ranks}
        counts = traffic(flows, seen, complete=not lost)
        part = worker(one, PeerTable(names), rails(), counts, codes, [])
        parts.append(summary(one, part | {"series": None}))
    job = whole(*parts, nnodes=count, nproc=8, failure=failure, **fields)
    Receipt.model_validate(job)
    return job, parts[0]


@pytest.mark.parametrize(
    "count", [65, pytest.param(300, marks=pytest.mark.large), pytest.param(1000, marks=pytest.mark.large)]
)
def test_the_receipt_of_many_workers_is_a_summary_that_keeps_the_sums_and_the_leaks(count: int) -> None:
    found, part = large(count)
    assert len(json.dumps(found)) < MB
    assert [rank["rank"] for rank in found["ranks"]] == [9]
    assert found["ranks_omitted"] == {"0": 8 * count - 1}
    kept = part["peers"]
    assert len(kept) == 2048 // count
    assert (kept[0]["interface"], kept[0]["node"]) == ("eth0", "train-w-0-1-x7k2p")
    if len(kept) > 2:
        assert kept[2]["node"] == f"train-w-0-{count - 1}-x7k2p"  # the most bytes
    assert len(kept) + part["peers_omitted"] == count + 1
    total = sum(n + rank + 1 for rank in range(count) for n in range(count) if n != rank)
    assert found["rails"][0]["peer_bytes"] == total * 2 * MB
    for bound in ("backend_share", "backend_share_high"):
        assert found[bound] == pytest.approx(total / (total + 2 * count), abs=2e-6)


@pytest.mark.large
def test_the_receipt_of_a_large_job_that_failed_everywhere_is_small_and_keeps_the_first_failures() -> None:
    failure = Failure("script", "rank 4711 exited with 143", 143, rank=4711, node="train-w-0-588-x7k2p")
    found, _ = large(1000, other_code=143, failure=failure, lost=10**12)
    assert len(json.dumps(found)) < MB
    ranks = [rank["rank"] for rank in found["ranks"]]
    assert (len(ranks), ranks == sorted(ranks), {9, 4711} <= set(ranks)) == (256, True, True)
    assert found["ranks_omitted"] == {"143": 8000 - 256}
    nodes = found["nodes"]
    assert sum(len(node["findings"]) for node in nodes) == 100
    assert sum(node["findings_omitted"] for node in nodes) == 900
    assert len(found["findings"]) == 101
    full, _ = large(65, other_code=143, lost=10**12, full_receipt=True)
    assert (len(full["ranks"]), full["ranks_omitted"]) == (520, {})
    assert not any(node["findings_omitted"] for node in full["nodes"])


def test_ranks_of_lost_workers_count_as_unknown() -> None:
    one = {**made(0, {}), "codes": {}}
    found = whole(*[{**one, "node_rank": rank} for rank in range(200)], nnodes=200)
    assert (len(found["ranks"]), found["ranks_omitted"]) == (256, {"unknown": 144})


def test_a_full_receipt_keeps_each_rank_and_more_pairs() -> None:
    found, part = large(100, full_receipt=True)
    assert (len(part["peers"]), part["peers_omitted"], len(found["ranks"])) == (101, 0, 800)
    found, part = large(64)
    assert (len(part["peers"]), part["peers_omitted"], len(found["ranks"])) == (65, 0, 512)


def test_a_missing_worker_may_have_had_all_rows_that_were_left_out() -> None:
    one = made(0, {(1, "net1"): flow(5), (2, "net1"): flow(5)})
    two = made(1, {(0, "net1"): flow(5)})
    assert whole(one, two, nnodes=3)["backend_share"] == 1
    one["peers"], one["peers_omitted"] = one["peers"][:1], 1
    found = whole(one, two, nnodes=3)
    assert (found["backend_share"], found["backend_share_high"]) == (0.75, 1.0)
