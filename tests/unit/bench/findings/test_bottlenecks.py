"""What limits the whole, and bytes that went another way: each fault gives its finding, and none besides."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bench_faults import SEEDS, changed_setup, made, only
from tests.unit.bench_results import SYSCTLS, changed
from torchnet.bench.findings import find

# -- limits


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), SEEDS, st.data())
def test_mtus_that_differ_are_told_and_not_what_follows(nodes: int, seed: int, data: st.DataObject) -> None:
    odd = data.draw(st.integers(0, nodes - 1)) if nodes > 2 else 0
    results = made(
        nodes,
        seed=seed,
        mtus={odd: 1500},
        path=lambda a, b: 0.6 if odd in (a, b) else 1.0,
        repeats=lambda a, b: 0.03 if odd in (a, b) else 0.0,
    )
    found = only(results)
    assert (found.kind, found.where) == ("mtu", (f"node-{odd}",))
    assert "1500" in found.text
    assert "9000" in found.text


@pytest.mark.parametrize("nodes", [2, 4])
def test_a_single_stream_that_its_window_limits_is_told(nodes: int) -> None:
    found = only(made(nodes, one_stream=0.5, window_limited=0.9, achieved=0.9))
    assert found.kind == "single-stream"
    assert found.fix.endswith("--streams 4")


def test_a_single_stream_that_its_core_limits_is_told_but_not_where_all_cores_are_in_use() -> None:
    found = only(made(2, one_stream=0.6, core=0.99, achieved=0.6))
    assert found.kind == "single-stream"
    assert "99 % of one core" in found.text
    assert only(made(2, one_stream=0.6, core=0.99, busy=0.97, achieved=0.6)).kind == "cpu-bound"
    assert only(made(2, one_stream=0.6, core=0.99, throttled=0.3, achieved=0.6)).kind == "cpu-bound"


@pytest.mark.parametrize(("rate", "share"), [(2e9, 0.5), (100e9, 0.05), (25e9, 0.01)])
@pytest.mark.parametrize("nodes", [2, 4])
def test_one_flow_of_an_interface_that_tells_more_is_told_and_that_several_would_say_why(
    nodes: int, rate: float, share: float
) -> None:
    """2 x 1 Gbit/s, a cloud's 5 Gbit/s for each flow, and a switch that gives a hundredth."""
    flow = {"known": "interface", "rate": rate, "one_stream": share, "core": 0.1, "achieved": share * 0.9}
    found = only(made(nodes, **flow))
    assert found.kind == "single-stream"
    assert found.fix.endswith("--streams 4")
    assert not find(made(nodes, **{**flow, "achieved": 0.95})), (
        "collectives fill the line: they have more flows"
    )
    assert not find(made(nodes, **flow, window_limited=0.2)), "nobody knows why"


def test_the_processor_is_told_where_the_line_is_known_and_how_it_is_known() -> None:
    assert "97 %" in only(made(4, path=lambda _a, _b: 0.6, busy=0.97)).text
    assert only(made(2, path=lambda _a, _b: 0.6, core=0.99, streams=(4,))).kind == "cpu-bound"
    found = only(made(2, path=lambda _a, _b: 0.6, throttled=0.3))
    assert found.kind == "cpu-bound"
    assert "quota" in found.text


def test_a_slow_path_is_told_though_something_else_uses_all_cores() -> None:
    """Its stream hardly asks for one."""
    assert only(made(2, path=lambda _a, _b: 0.1, busy=1.0, core=0.01)).kind == "slow-pair"


def test_buffers_that_hold_less_than_is_under_way_are_told_with_the_numbers_that_do() -> None:
    results = made(2, rate=10e9, round_trip=0.02, one_stream=0.2, window_limited=0.9, path=lambda _a, _b: 1.0)
    found = only(results)
    assert found.kind == "buffers"
    # 10 Gbit/s and 14 ms are 17.5 MB, twice that 35 MB: the next power of two, and the other words as they were.
    assert "net.ipv4.tcp_wmem='4096 16384 67108864'" in found.fix
    assert "net.ipv4.tcp_rmem='4096 131072 67108864'" in found.fix


def test_small_buffers_are_told_only_where_the_line_is_not_reached() -> None:
    small = {**SYSCTLS, "net.ipv4.tcp_wmem": "4096 16384 16384"}
    assert not find(made(2, sysctls=small, round_trip=0.001))


# -- traffic


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), SEEDS, st.sampled_from([0.1, 1.0]))
def test_traffic_over_another_interface_is_told(nodes: int, seed: int, share: float) -> None:
    found = only(made(nodes, seed=seed, strays=share, achieved=0.5))
    assert (found.kind, found.where) == ("wrong-interface", ("eth0",))


def test_a_receipt_of_the_wrong_network_is_told_where_no_socket_was_seen() -> None:
    results = made(2)
    rows = [row.model_copy(update={"sockets_bytes": None}) for row in results.collectives]
    found = only(changed(results, collectives=tuple(rows), backend_share=0.4))
    assert found.kind == "wrong-interface"


def test_ranks_that_were_told_another_interface_are_told_of_by_the_receipt() -> None:
    """GLOO_SOCKET_IFNAME=eth0: to the ranks, that is the network."""
    results = made(2, strays=1.0)
    setup = changed_setup(results, interface="eth0", environment={"GLOO_SOCKET_IFNAME": "eth0"})
    rows = [row.model_copy(update={"network": "eth0"}) for row in results.collectives]
    found = only(changed(setup, collectives=tuple(rows)))
    assert (found.kind, found.where, found.fix) == ("wrong-interface", ("eth0",), "torchnet env --explain")


def test_what_the_other_network_loses_is_not_told_where_ranks_took_it_for_the_backend() -> None:
    results = made(2, strays=1.0, repeats=lambda _a, _b: 0.03)
    results = changed_setup(results, interface="eth0", environment={"GLOO_SOCKET_IFNAME": "eth0"})
    parts = {
        name: tuple(row.model_copy(update={"network": "eth0"}) for row in getattr(results, name))
        for name in ("collectives", "tcp", "latency", "lines")
    }
    assert only(changed(results, **parts)).kind == "wrong-interface"


def test_rails_are_no_other_interface() -> None:
    results = made(2, strays=0.5)
    assert results.setup
    rows = [
        row.model_copy(
            update={"sockets_bytes": {"net1": 1, "net2": 1}, "formula_bytes": 2.0, "interface_bytes": None}
        )
        for row in results.collectives
    ]
    setup = changed_setup(results, environment={"GLOO_SOCKET_IFNAME": "net1,net2"})
    assert not find(changed(setup, collectives=tuple(rows), backend_share=1.0))
    found = find(changed(results, collectives=tuple(rows), backend_share=1.0))
    assert [one.kind for one in found] == ["wrong-interface"]


@pytest.mark.parametrize(("factor", "share"), [(1.5, "150."), (0.5, "50.")])
def test_bytes_that_the_formula_does_not_explain_are_told(factor: float, share: str) -> None:
    results = made(2)
    rows = [
        row.model_copy(update={"formula_bytes": row.formula_bytes / factor}) for row in results.collectives
    ]
    found = only(changed(results, collectives=tuple(rows)))
    assert found.kind == "bytes"
    assert f" {share}" in found.text


def test_a_chain_of_nccl_may_come_back_to_its_root_s_node() -> None:
    """The same bytes in a ring, which has no root, are too many."""
    for collective, kinds in (("broadcast", []), ("all_gather", ["bytes"])):
        results = made(2, backend="nccl", per_node=4, collectives=(collective,))
        rows = [
            row.model_copy(update={"formula_bytes": row.formula_bytes / 2}) for row in results.collectives
        ]
        assert [one.kind for one in find(changed(results, collectives=tuple(rows)))] == kinds


def test_ranks_of_one_node_need_no_network() -> None:
    results = changed_setup(made(2), ranks=4)
    rows = [row.model_copy(update={"formula_bytes": row.formula_bytes * 3}) for row in results.collectives]
    assert not find(changed(results, collectives=tuple(rows)))


@pytest.mark.parametrize("factor", [2, 0.5])
def test_bytes_of_the_interface_that_are_not_the_sockets_are_told(factor: float) -> None:
    results = made(2)
    rows = [
        row.model_copy(
            update={
                "interface_bytes": {name: int(n * factor) for name, n in (row.interface_bytes or {}).items()}
            }
        )
        for row in results.collectives
    ]
    found = only(changed(results, collectives=tuple(rows)))
    assert (found.kind, found.where) == ("bytes", ("net1",))


def test_sockets_that_carry_less_are_told_where_nccl_was_told_no_other_way() -> None:
    for environment in (
        {},
        {"NCCL_IB_HCA": "mlx5_0", "NCCL_IB_DISABLE": "1"},
        {"NCCL_IB_HCA": "x", "NCCL_NET": "Socket"},
    ):
        results = made(2, backend="nccl", environment={"NCCL_SOCKET_IFNAME": "net1", **environment})
        rows = [
            row.model_copy(update={"formula_bytes": row.formula_bytes * 2}) for row in results.collectives
        ]
        assert only(changed(results, collectives=tuple(rows))).kind == "bytes"


def test_somebody_else_on_the_line_is_told_though_rdma_was_meant_and_sockets_carried_all() -> None:
    results = made(2, backend="nccl", environment={"NCCL_SOCKET_IFNAME": "net1", "NCCL_IB_HCA": "=mlx5_0"})
    rows = [
        row.model_copy(update={"interface_bytes": {"net1": 2 * (row.interface_bytes or {})["net1"]}})
        for row in results.collectives
    ]
    found = only(changed(results, collectives=tuple(rows)))
    assert (found.kind, found.where) == ("bytes", ("net1",))
