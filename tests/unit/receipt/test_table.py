"""The receipt as people read it."""

from __future__ import annotations

import copy
from typing import Any

from tests import golden
from tests.unit.receipts import receipt
from torchnet.ansi import cells
from torchnet.constants import ONE_NETWORK
from torchnet.receipt.receipt_model import Measured, Receipt
from torchnet.receipt.step_timing import rhythm, summarize_samples
from torchnet.receipt.table import exchanged, render


def table(columns: int | None = None, color: bool = False, **fields: Any) -> str:
    return render(Receipt.model_validate(receipt(**fields)), columns=columns, color=color)


def many(count: int) -> list[dict[str, Any]]:
    nodes = []
    for i in range(count):
        node = copy.deepcopy(receipt()["nodes"][0])
        node.update(node=f"node-{i}", node_rank=i, peers=[])
        node["interfaces"]["net1"]["sent_bytes"] += i * 1_000_000
        nodes.append(node)
    return nodes


def rails(first: int, second: int) -> list[dict[str, Any]]:
    counts = {"net1": first, "net2": second}
    return [{"interface": n, "peer_bytes": c, "share": c / (first + second)} for n, c in counts.items()]


def test_wording() -> None:
    nodes = receipt()["nodes"]
    nodes[1]["flaps"] = [{"interface": "net1", "at_s": 34.5, "duration_s": 1.2}]
    nodes[1]["findings"] = ["the witnesses disagree by 3 %", "node-1: said twice"]
    measured = Measured(
        nodes=2, sample_s=0.005, observed_s=10, idle_share=0.4, busbw=1.2e8, peak=1.2e8, line_share=0.96,
        steps_per_s=5.1, step_bytes=2.2e7, step_active_s=0.08,
    )  # fmt: skip
    bursts = measured.model_copy(update={"steps_per_s": None, "step_bytes": None, "step_active_s": None})
    samples = [rhythm([one], 0.005).why for one in ([0.0] * 9, [5e6] * 400, [5e6, 0.0, 0.0] * 100)]
    unknown: dict[str, Any] = {"proof": "unknown", "backend_share": None}
    failure = {"kind": "script", "text": "rank 1 failed", "code": 42, "node": "node-1", "at": 1.0}
    nothing = [{**node, "interfaces": {}, "peers": []} for node in receipt()["nodes"]]
    tables = {
        "measured": table(min_share=0.95, measured=measured.model_dump()),
        "bursts": table(measured=bursts.model_dump(), restarts=1),
        "one network": table(proof_reason=ONE_NETWORK),
        "inferred": table(proof="inferred", proof_reason="from the ports' counters", min_share=0.9999),
        "unknown": table(**unknown, min_share=0.5),
        "unknown, reason": table(**unknown, proof_reason="net1 is an RDMA port"),
        "unknown, one node": table(**unknown, nnodes=1),
        "unknown, loopback": table(**unknown, network="loopback"),
        "rails, findings": table(
            rails=rails(100_000, 25_000),
            nodes=nodes,
            findings=["node-2 sent no receipt", "node-1: said twice"],
        ),
        "many nodes": table(nodes=many(64), nnodes=64, findings=[f"{n}" for n in range(18)]),
        "failed": table(failure=failure, exit_code=42, reason="rank 1 failed"),
        "not started": table(failure=failure, exit_code=4, reason="rank 1 failed", nodes=nothing),
    }
    reasons = [
        *samples,
        *(summarize_samples(receipt(network=n), requested=True)["measured"]["why"] for n in ("", "loopback")),
    ]
    busy = [{**one, "findings": ["x"]} for one in many(18)]
    (left_out,) = [line for line in table(nodes=busy, nnodes=18).splitlines() if line.startswith("…")]
    parts = [f"=== {name} ===\n{shortened(text)}\n" for name, text in tables.items()]
    parts.append("\n".join(["=== others ===", left_out, *filter(None, reasons)]))
    golden.check("receipt-table.txt", "\n".join(parts))


def shortened(text: str) -> str:
    """The title and what follows the rows, unless these are of many nodes or of a job with nothing else."""
    title, _, rest = text.partition("\n\n")
    return (
        text
        if "--min-share 95 " in text or "64 nodes" in text
        else "\n".join([title, rest.partition("\n\n")[2]])
    )


def test_a_terminals_width_is_kept() -> None:
    nodes = receipt()["nodes"]
    nodes[0]["node"] = "日本-a-very-long-name-of-a-pod-as-they-are-on-clusters-0"
    nodes[0]["findings"] = [
        "the sockets and the interface's counters disagree by 3.2 %, which is more than 2 %"
    ]
    for columns in (80, 100, 200):
        for color in (False, True):
            text = table(columns, color, nodes=nodes, reason="rank 3 on node-1 exited with code 42 " * 4)
            assert all(cells(line) <= columns for line in text.splitlines())


def test_a_long_name_is_cut_in_the_middle() -> None:
    nodes = receipt()["nodes"]
    nodes[0]["node"] = "a-very-long-name-of-a-pod-worker-17"
    assert "a-very-lon…d-worker-17  " in table(nodes=nodes)


def test_colours_close_on_each_line() -> None:
    for line in table(80, True, min_share=0.9999, findings=["x" * 200]).splitlines():
        assert line.count("\x1b[") % 2 == 0
        assert "\x1b" not in line or line.endswith("\x1b[0m")


def test_uneven_rails_are_named_and_even_ones_are_not() -> None:
    even = table(rails=rails(100_000_000, 99_000_000))
    assert "rails: net1 100.0 MB (50.25 %), net2 99.00 MB (49.74 %)\n" in even
    assert even.endswith("over net1, net2")
    assert "uneven: net2 carried 25 % of " in table(rails=rails(100, 25))
    assert "uneven: net2 carried 0 % of " in table(rails=rails(100, 0))
    assert "uneven" not in table(
        rails=rails(100, 25), findings=["rails are unequal: net2 carried 25 B, net1 100 B"]
    )
    assert "rails:" not in table()


def test_hostile_names_are_escaped() -> None:
    nodes = receipt()["nodes"]
    nodes[0].update(node="\x1b[2J", findings=["\u202e\n\x1b]0;x\x07"])
    nodes[0]["interfaces"]["\x9b1m"] = {"role": "other", "sent_bytes": 1, "received_bytes": 1}
    text = table(nodes=nodes, run_id="\x1b", reason="a\nb", findings=["\x00"])
    assert not set("\x1b\x9b\x07\x00\u202e") & set(text)
    assert "a\\x0ab" in text


def test_unused_interfaces_of_no_role_are_left_out() -> None:
    assert "lo " not in table()


def test_many_nodes_are_summed_up() -> None:
    nodes = many(64)
    nodes[7]["findings"] = ["the witnesses disagree"]
    text = table(nodes=nodes, nnodes=64)
    assert len(text.splitlines()) < 30
    assert "all 64 nodes" in text
    assert "    least: node-0      " in text
    assert "    most: node-63      " in text
    assert "\nnode-7 " in text
    assert "\nnode-8 " not in text


def test_many_remarkable_nodes_are_counted() -> None:
    nodes = many(1000)
    for node in nodes:
        node["findings"] = ["the witnesses disagree"]
    text = table(nodes=nodes, nnodes=1000)
    assert len(text.splitlines()) < 90
    assert "984 more nodes " in text
    assert "984 findings " in text


def test_failed_nodes_of_many_are_listed() -> None:
    ranks = [
        {"rank": i, "local_rank": 0, "node": f"node-{i}", "exit_code": 42 if i == 9 else 0} for i in range(64)
    ]
    text = table(nodes=many(64), nnodes=64, ranks=ranks, exit_code=42, reason="rank 9 exited with code 42")
    assert "\nnode-9 " in text
    assert "\nnode-8 " not in text
    # A large job's receipt has not all failed ranks.
    failed = [{**rank, "exit_code": 143} for rank in ranks[:20]]
    found: dict[str, Any] = {
        "ranks": failed,
        "ranks_omitted": {"143": 44},
        "exit_code": 143,
        "reason": "stopped",
    }
    assert "at least 4 more nodes" in table(nodes=many(64), nnodes=64, **found)


def test_bytes_exchanged_are_counted_once() -> None:
    whole = Receipt.model_validate(receipt())
    assert exchanged(whole) == 405_300_000
    lost = Receipt.model_validate(receipt(nodes=receipt()["nodes"][:1]))
    assert exchanged(lost) == 405_300_000  # the other's receipt is missing: this one has seen both directions
    assert exchanged(Receipt.model_validate(receipt(nodes=many(4)))) == 2 * 405_300_000
    nodes = receipt()["nodes"]
    for node in nodes:
        node["rdma_bytes"] = {"mlx5_0/1": 1_000_000_000}
    assert exchanged(Receipt.model_validate(receipt(nodes=nodes))) == 1_405_300_000
