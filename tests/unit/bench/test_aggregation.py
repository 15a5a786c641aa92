"""From what ranks say to results: nccl-tests' arithmetic, the line that is held against it, and early ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.schema import errors
from torchnet.bench import results as model
from torchnet.bench.aggregation import RunContext, RunEnding, results
from torchnet.bench.summary import render
from torchnet.bench.worker import result_messages

CONTEXT = RunContext(
    on="local",
    command=("torchnet", "bench"),
    look=("torchnet", "bench", "--dry-run"),
    date="2026-01-02T03:04:05Z",
    version="0.1.0",
)
DONE = result_messages.Done(3.0)
SETUP = result_messages.Setup(
    "gloo", "cpu", 4, 4, "net1", {"torch": "2.15.0"}, {"GLOO_SOCKET_IFNAME": "net1"}
)
RECEIPT: dict[str, Any] = {
    "run_id": "bench-1", "backend_share": 0.999, "proof": "measured", "reason": "done", "failure": None
}  # fmt: skip


def node(number: int, speed: int = 10**10, mtu: int = 9000) -> result_messages.Node:
    addresses = {"net1": f"fcbb::{number}", "eth0": f"172.30.0.{number}"}
    mtus, speeds = {"net1": mtu, "eth0": 1500}, {"net1": speed, "eth0": 10**9}
    return result_messages.Node(number, f"node-{number}", addresses, mtus, speeds, {}, 2.0, 1 << 33, "", "")


def collective(name: str = "all_reduce", size: int = 4000, **more: Any) -> result_messages.Collective:
    values: dict[str, Any] = {
        "network": "net1", "collective": name, "size": size, "elements": size // 4, "dtype": "float32", "redop": "sum",
        "root": -1, "in_place": False, "times": [1e-5, 2e-5, 3e-5], "calls": 30, "wrong": 0, "formula_bytes": 1.0,
        "sockets_bytes": {"net1": 5}, "interface_bytes": None, "busy": 0.5,
    }  # fmt: skip
    return result_messages.Collective(**{**values, **more})


TCP = result_messages.Tcp("net1", 0, 1, False, 1, [1e8, 1.1e8, 1.2e8], 3, 1000, 0.5)
ALL: list[result_messages.Message] = [
    node(0),
    node(1),
    SETUP,
    collective(),
    TCP,
    result_messages.Latency("net1", 0, 1, 64, 9, 1e-5, 2e-5, 1e-5),
    DONE,
]


def made(
    *said: result_messages.Message, context: RunContext = CONTEXT, ending: RunEnding | None = None
) -> model.Results:
    return results(said or ALL, context, ending or RunEnding(0, RECEIPT))


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("all_reduce", 1.5),
        ("all_gather", 0.75),
        ("reduce_scatter", 0.75),
        ("all_to_all", 0.75),
        ("broadcast", 1.0),
    ],
)
def test_bandwidths_are_nccl_tests_own(name: str, factor: float) -> None:
    (one,) = made(node(0), SETUP, collective(name), DONE).collectives
    assert one.time.median == 2e-5
    assert one.algbw == pytest.approx(4000 / 2e-5)
    assert one.busbw == pytest.approx(4000 / 2e-5 * factor)
    assert (one.busbw_low, one.busbw_high) == pytest.approx((4000 / 3e-5 * factor, 4000 / 1e-5 * factor))


def test_results_hold_all_that_was_said_and_the_schema_allows_them() -> None:
    found = made()
    assert found.complete
    assert found.reason == ""
    assert (found.run, found.backend_share, found.proof) == ("bench-1", 0.999, "measured")
    assert [one.name for one in found.nodes] == ["node-0", "node-1"]
    document = json.loads(model.dump(found))
    assert not errors(document, json.loads(model.SCHEMA_FILE.read_text()))
    assert model.load(json.dumps(document)) == found


def test_what_the_processor_did_is_handed_on() -> None:
    (one,) = made(node(0), SETUP, collective(busy=0.5, throttled=0.25, core=0.75), DONE).collectives
    assert (one.busy, one.throttled, one.core) == (0.5, 0.25, 0.75)


def test_the_schema_file_is_the_models() -> None:
    assert json.loads(Path(model.SCHEMA_FILE).read_text()) == model.schema()


def test_what_a_newer_torchnet_adds_is_kept() -> None:
    document = {**json.loads(model.dump(made())), "later": 1}
    assert json.loads(model.dump(model.load(json.dumps(document))))["later"] == 1


def test_words_of_a_newer_torchnet_are_read_allowed_and_shown() -> None:
    found = made(context=replace(CONTEXT, rate=10**9))
    document = json.loads(model.dump(found))
    document["findings"] = [{"kind": "future", "text": "A new thing.", "fix": "look", "where": []}]
    document["setup"]["on"], document["lines"][0]["known"], document["proof"] = (
        "slurm",
        "asked-switch",
        "signed",
    )
    read = model.load(json.dumps(document))
    assert not errors(json.loads(model.dump(read)), json.loads(model.SCHEMA_FILE.read_text()))
    text = render(read)
    assert all(word in text for word in ("A new thing.", "1 Gbit/s line, asked-switch", "(signed)"))


@pytest.mark.parametrize(
    ("context", "known", "rate"),
    [
        (CONTEXT, None, 0),
        (replace(CONTEXT, rate=10**9), "shaped", 10**9),
        (replace(CONTEXT, line=2 * 10**9, rate=10**9), "told", 2 * 10**9),
        (replace(CONTEXT, on="kubernetes"), "interface", 4 * 10**9),
        (replace(CONTEXT, on="kubernetes", line=10**11), "told", 10**11),
    ],
    ids=["local", "rate", "line over rate", "slowest interface", "line"],
)
def test_the_line_is_told_or_shaped_or_the_slowest_interface(
    context: RunContext, known: str | None, rate: int
) -> None:
    found = made(node(0), node(1, speed=4 * 10**9, mtu=1500), SETUP, collective(), TCP, DONE, context=context)
    line = found.line("net1")
    if known is None:
        assert line is None
        assert found.collectives[0].ceiling_share is None
        return
    assert line is not None
    assert (line.known, line.rate_bits_per_s, line.mtu, line.family) == (known, rate, 1500, 6)
    assert found.collectives[0].ceiling_share == pytest.approx(found.collectives[0].busbw / line.ceiling)
    assert found.tcp[0].ceiling_share == pytest.approx(1.1e8 / line.ceiling)


def test_an_interface_that_one_node_cannot_tell_is_not_known() -> None:
    context = replace(CONTEXT, on="kubernetes")
    assert made(node(0), node(1, speed=0), SETUP, DONE, context=context).line("net1") is None


def test_the_compared_interface_has_its_own_line_and_the_share_is_not_the_receipts() -> None:
    context = replace(CONTEXT, on="kubernetes", compare="eth0", line=10**11)
    found = made(*ALL, context=context)
    other = found.line("eth0")
    assert other is not None
    assert (other.known, other.rate_bits_per_s, other.family) == ("interface", 10**9, 4)
    assert (found.backend_share, found.proof) == (None, "unknown")


@pytest.mark.parametrize(("told", "lines"), [("=net1,net2", 2), ("net1", 1), ("^lo,docker0", 1), ("", 1)])
def test_nccl_spreads_one_collective_over_its_interfaces(told: str, lines: int) -> None:
    setup = replace(SETUP, backend="nccl", environment={"NCCL_SOCKET_IFNAME": told})
    one = made(node(0), setup, collective(), DONE, context=replace(CONTEXT, rate=10**9))
    line = one.line("net1")
    assert line is not None
    assert one.collectives[0].ceiling_share == pytest.approx(
        one.collectives[0].busbw / (lines * line.ceiling)
    )


def test_each_rail_has_the_backends_line_and_the_primary_none() -> None:
    nodes = [
        replace(one, addresses={**one.addresses, "net2": "fcbb:1::1"}, mtus={**one.mtus, "net2": 9000})
        for one in (node(0), node(1))
    ]
    found = made(*nodes, SETUP, collective(), DONE, context=replace(CONTEXT, rate=10**9))
    assert {line.network: (line.rate_bits_per_s, line.known) for line in found.lines} == {
        "net1": (10**9, "shaped"),
        "net2": (10**9, "shaped"),
    }


def test_by_what_kind_of_failure_it_ended_is_told() -> None:
    failure = {"kind": "lost", "text": "lost node-1", "code": 70}
    assert results([], CONTEXT, RunEnding(70, RECEIPT, failure)).ended == "lost"
    assert results([], CONTEXT, RunEnding(70, RECEIPT)).ended == ""


@pytest.mark.parametrize(
    ("name", "times"), [("all_to_all", 2 * 2 / 3), ("all_reduce", 1), ("send_recv", 1), ("broadcast", 1)]
)
def test_a_share_of_the_line_is_of_what_all_ranks_of_a_node_send_over_it(name: str, times: float) -> None:
    setup = replace(SETUP, nodes=2)
    found = made(node(0), node(1), setup, collective(name), DONE, context=replace(CONTEXT, rate=10**9))
    (one,), line = found.collectives, found.line("net1")
    assert line is not None
    assert one.ceiling_share == pytest.approx(times * one.busbw / line.ceiling)


@pytest.mark.parametrize(("stamps", "header"), [(("0", "0"), 60), (("0", "1"), 60), (("1", "1"), 72)])
def test_timestamps_cost_where_nodes_use_them(stamps: tuple[str, str], header: int) -> None:
    nodes = [
        replace(node(number), sysctls={"net.ipv4.tcp_timestamps": one}) for number, one in enumerate(stamps)
    ]
    line = made(*nodes, SETUP, collective(), DONE, context=replace(CONTEXT, rate=10**9)).line("net1")
    assert line is not None
    assert line.ceiling == pytest.approx(10**9 / 8 * (9000 - header) / 9014)


def test_one_node_has_no_line() -> None:
    context = replace(CONTEXT, rate=10**9)
    assert made(node(0), replace(SETUP, nodes=1), collective(), DONE, context=context).lines == ()


def test_what_came_before_an_early_end_is_kept_and_marked() -> None:
    failure = {
        "kind": "script",
        "text": "rank 1 on node-1 was killed by SIGKILL",
        "code": 137,
        "node": "node-1",
    }
    found = made(*ALL[:4], ending=RunEnding(137, {**RECEIPT, "failure": failure}, failure))
    assert len(found.collectives) == 1
    assert (found.complete, found.exit_code) == (False, 137)
    assert found.reason == "rank 1 on node-1 was killed by SIGKILL"


def test_a_rank_that_fails_after_the_last_word_is_no_complete_run_either() -> None:
    found = made(*ALL, ending=RunEnding(1, {**RECEIPT, "reason": "rank 1 on node-1 exited with code 1"}))
    assert (found.complete, found.reason) == (False, "rank 1 on node-1 exited with code 1")


def test_an_end_without_the_last_word_is_no_complete_run() -> None:
    found = made(*ALL[:4])
    assert not found.complete
    assert found.reason.startswith("rank 0 ")


def test_a_refused_network_is_a_finding_with_its_fix() -> None:
    failure = {
        "kind": "network",
        "text": "node-1: no carrier\n  fix: look at the cable",
        "code": 4,
        "node": "node-1",
    }
    found = results([], CONTEXT, RunEnding(4, {**RECEIPT, "failure": failure}, failure))
    assert (found.setup, found.exit_code, found.reason) == (None, 4, "node-1: no carrier")
    (finding,) = found.findings
    assert (finding.kind, finding.text, finding.fix) == ("network", "node-1: no carrier", "look at the cable")
    assert not errors(json.loads(model.dump(found)), model.schema())


def test_a_refused_network_without_a_fix_is_looked_at_where_it_is() -> None:
    failure = {"kind": "network", "text": "node-1: no carrier", "code": 4, "node": "node-1"}
    found = results(
        [], replace(CONTEXT, look=("torchnet", "verify", "-n", "m l")), RunEnding(4, RECEIPT, failure)
    )
    assert found.look == ("torchnet", "verify", "-n", "m l")
    assert found.findings[0].fix == "torchnet verify -n 'm l'"


def test_what_makes_no_sense_is_lacking_and_costs_nothing_else() -> None:
    senseless: list[result_messages.Message] = [
        collective(size=-1),
        collective(times=["x"]),
        collective(dtype=None),
        replace(TCP, rates=[float("inf")]),
        result_messages.Latency("net1", 0, 1, 64, 9, -1.0, 2e-5, 1e-5),
        replace(node(2), cores="many"),  # type: ignore[arg-type]
        result_messages.Lacks("x", None),  # type: ignore[arg-type]
    ]
    found = made(*senseless, *ALL)
    good = made()
    assert (found.nodes, found.collectives, found.tcp, found.latency) == (
        good.nodes, good.collectives, good.tcp, good.latency
    )  # fmt: skip
    assert [one.what for one in found.lacks] == ["a figure"] * len(senseless)
    assert "size: Input should be greater than or equal to 0" in " ".join(one.why for one in found.lacks)


def test_without_a_setup_that_makes_sense_the_figures_are_kept() -> None:
    found = made(node(0), replace(SETUP, ranks=-4), collective(), TCP, DONE)
    assert (found.setup, len(found.collectives), len(found.tcp)) == (None, 1, 1)
    assert [one.what for one in found.lacks] == ["a figure"]


@pytest.mark.parametrize("share", ["x", -1, 2, float("nan"), None])
def test_a_receipts_share_that_makes_no_sense_is_none(share: object) -> None:
    assert made(ending=RunEnding(0, {**RECEIPT, "backend_share": share, "proof": 3})).backend_share is None


def test_a_line_that_makes_no_sense_is_none() -> None:
    found = made(node(0), node(1, mtu=40), SETUP, collective(), DONE, context=replace(CONTEXT, rate=10**9))
    assert (found.lines, found.collectives[0].ceiling_share) == ((), None)
    assert found.lacks[0].why.startswith("the line of net1: ceiling: ")


def test_what_could_not_be_read_or_measured_is_lacking() -> None:
    found = made(
        *ALL, result_messages.Lacks("reduce", "no"), ending=RunEnding(0, RECEIPT, unreadable=("a line",))
    )
    assert [(one.what, one.why) for one in found.lacks] == [("reduce", "no"), ("a figure", "a line")]
