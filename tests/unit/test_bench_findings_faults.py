"""Each fault gives its finding, and none besides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bench_results import SIZES, SYSCTLS, changed, healthy
from torchnet.bench.findings import find
from torchnet.bench.results import Finding, Results

SEEDS = st.integers(0, 1 << 30)
NOISES = st.sampled_from([0.005, 0.03])
PAIRS = st.sampled_from(["ring", "all"])


def only(results: Results) -> Finding:
    found = find(results)
    assert [finding.kind for finding in found] == [found[0].kind] if found else found == (), found
    assert found, "no finding"
    assert found[0].fix
    assert found[0].text.endswith(".")
    return found[0]


def made(nodes: int = 2, **fields: Any) -> Results:
    noise = fields.setdefault("noise", 0.01)
    return healthy(nodes, **{"wander": noise / 2, "sizes": SIZES[::2], **fields})


# -- paths


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 8), st.data(), SEEDS, NOISES, PAIRS, st.sampled_from([0.1, 0.7]))
def test_a_slow_node_is_named(
    nodes: int, data: st.DataObject, seed: int, noise: float, pairs: str, share: float
) -> None:
    odd = data.draw(st.integers(0, nodes - 1))
    results = made(
        nodes, seed=seed, noise=noise, pairs=pairs, path=lambda a, b: share if odd in (a, b) else 1.0
    )
    found = only(results)
    assert (found.kind, found.where) == ("slow-node", (f"node-{odd}",))


def test_two_slow_nodes_are_both_named() -> None:
    found = find(made(5, path=lambda a, b: 0.3 if {1, 3} & {a, b} else 1.0))
    assert [(one.kind, one.where) for one in found] == [
        ("slow-node", ("node-1",)),
        ("slow-node", ("node-3",)),
    ]


def test_a_slow_node_that_a_quota_holds_up_says_so() -> None:
    results = made(3, path=lambda a, b: 0.1 if 1 in (a, b) else 1.0)
    rows = [
        row.model_copy(update={"throttled": 0.4}) if 1 in (row.source, row.target) else row
        for row in results.tcp
    ]
    assert "quota" in only(changed(results, tcp=tuple(rows))).text


@settings(max_examples=20, deadline=None)
@given(SEEDS, NOISES, st.sampled_from([0.1, 0.7]))
def test_of_two_nodes_the_pair_is_slow(seed: int, noise: float, share: float) -> None:
    found = only(made(seed=seed, noise=noise, path=lambda _a, _b: share))
    assert (found.kind, found.where) == ("slow-pair", ("node-0", "node-1"))


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 8), SEEDS, NOISES, st.sampled_from([0.1, 0.7]))
def test_a_slow_pair_of_nodes_that_are_fine_with_others_is_named(
    nodes: int, seed: int, noise: float, share: float
) -> None:
    found = only(made(nodes, seed=seed, noise=noise, path=lambda a, b: share if {a, b} == {1, 2} else 1.0))
    assert (found.kind, found.where) == ("slow-pair", ("node-1", "node-2"))


def test_where_all_pairs_are_slow_no_node_is_blamed() -> None:
    found = only(made(4, path=lambda _a, _b: 0.4))
    assert (found.kind, found.where) == ("slow-pair", ())
    assert "All pairs" in found.text


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), SEEDS, NOISES, st.sampled_from([0.1, 0.6]))
def test_one_slow_direction_is_named_with_its_sender(
    nodes: int, seed: int, noise: float, share: float
) -> None:
    found = only(made(nodes, seed=seed, noise=noise, path=lambda a, b: share if (a, b) == (1, 0) else 1.0))
    assert (found.kind, found.where) == ("asymmetry", ("node-1", "node-0"))
    assert "node-1 → node-0" in found.text


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 8), st.data(), SEEDS, NOISES, PAIRS, st.booleans())
def test_a_node_that_sends_or_receives_slowly_is_named_once(
    nodes: int, data: st.DataObject, seed: int, noise: float, pairs: str, sends: bool
) -> None:
    odd = data.draw(st.integers(0, nodes - 1))
    found = only(
        made(
            nodes,
            seed=seed,
            noise=noise,
            pairs=pairs,
            path=lambda a, b: 0.1 if odd == (a if sends else b) else 1.0,
        )
    )
    assert (found.kind, found.where) == ("asymmetry", (f"node-{odd}",))
    assert f"node-{odd} {'sends' if sends else 'receives'}" in found.text


def test_a_path_of_a_tenth_repeats_segments_and_is_still_only_slow() -> None:
    repeats = lambda a, b: 0.05 if 1 in (a, b) else 0.0  # noqa: E731
    assert only(made(3, path=lambda a, b: 0.1 if 1 in (a, b) else 1.0, repeats=repeats)).kind == "slow-node"


# -- loss


def test_loss_that_does_not_slow_a_fast_line_down_is_told() -> None:
    found = only(made(2, repeats=lambda a, b: 0.02 if (a, b) == (0, 1) else 0.0001))
    assert found.kind == "loss"
    assert "node-0 → node-1" in found.text


def test_loss_that_makes_small_messages_wait_is_told_where_the_processor_limits() -> None:
    results = made(3, rate=None, repeats=lambda a, b: 0.02 if 1 in (a, b) else 0.0)
    rows = [
        row.model_copy(update={"p99": 0.21}) if 1 in (row.source, row.target) else row
        for row in results.latency
    ]
    found = only(changed(results, latency=tuple(rows)))
    assert (found.kind, found.where) == ("loss", ("node-1",))


def test_loss_that_costs_rate_is_told_and_not_the_rate() -> None:
    results = made(2, noise=0.2, path=lambda _a, _b: 0.4, repeats=lambda _a, _b: 0.004)
    assert only(results).kind == "loss"


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
    assert "sockets were on eth0" in found.text


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


def changed_setup(results: Results, **fields: Any) -> Results:
    assert results.setup
    return changed(results, setup=results.setup.model_copy(update=fields))


@pytest.mark.parametrize(("factor", "words"), [(1.5, "travel with it"), (0.5, "not travel over TCP")])
def test_bytes_that_the_formula_does_not_explain_are_told(factor: float, words: str) -> None:
    results = made(2)
    rows = [
        row.model_copy(update={"formula_bytes": row.formula_bytes / factor}) for row in results.collectives
    ]
    found = only(changed(results, collectives=tuple(rows)))
    assert found.kind == "bytes"
    assert words in found.text


def test_ranks_of_one_node_need_no_network() -> None:
    results = changed_setup(made(2), ranks=4)
    rows = [row.model_copy(update={"formula_bytes": row.formula_bytes * 3}) for row in results.collectives]
    assert not find(changed(results, collectives=tuple(rows)))


@pytest.mark.parametrize(("factor", "words"), [(2, "somebody else"), (0.5, "another way")])
def test_bytes_of_the_interface_that_are_not_the_sockets_are_told(factor: float, words: str) -> None:
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
    assert found.kind == "bytes"
    assert words in found.text


# -- the run


def test_wrong_results_come_first() -> None:
    results = made(3, path=lambda a, b: 0.1 if 1 in (a, b) else 1.0)
    rows = (results.collectives[0].model_copy(update={"wrong": 7}), *results.collectives[1:])
    found = find(changed(results, collectives=rows))
    assert [one.kind for one in found] == ["wrong-results", "slow-node"]
    assert "7 elements" in found[0].text


@pytest.mark.parametrize("nodes", [2, 4])
def test_a_slow_collective_on_a_fast_path_is_told(nodes: int) -> None:
    assert only(made(nodes, achieved=0.6)).kind == "slow-collective"


def test_a_slow_collective_and_noise_that_a_slow_node_explains_are_not_told() -> None:
    assert only(made(3, achieved=0.5, path=lambda a, b: 0.3 if 1 in (a, b) else 1.0)).kind == "slow-node"


def test_noise_is_told() -> None:
    results = made(2, noise=0.01)
    rows = [
        row.model_copy(update={"time": row.time.model_copy(update={"high": row.time.median * 1.6})})
        for row in results.collectives
    ]
    assert only(changed(results, collectives=tuple(rows))).kind == "noise"


def test_a_local_network_that_was_refused_is_shown_without_a_script() -> None:
    found = only(changed(made(2), setup=None, complete=False, exit_code=4, reason="x"))
    assert found.fix == "torchnet bench --dry-run"


def test_a_network_that_the_preflight_refused_is_told_in_its_words() -> None:
    results = changed(
        made(2), setup=None, complete=False, exit_code=4, reason="node-1 does not answer at 9000 bytes"
    )
    found = only(results)
    assert found.kind == "network"
    assert "node-1 does not answer at 9000 bytes" in found.text


def test_a_lost_node_is_named_and_what_follows_is_not() -> None:
    results = changed(made(3, achieved=0.5), complete=False, exit_code=70, reason="node-2 was lost")
    found = only(results)
    assert (found.kind, found.where) == ("lost", ("node-2",))


def typed(results: Results, *words: str) -> Results:
    return changed_setup(results, command=("torchnet", "bench", *words))


SLOW: dict[str, Any] = {"on": "kubernetes", "path": lambda a, b: 0.1 if 1 in (a, b) else 1.0}


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ((), "torchnet verify"),
        (("-nml",), "torchnet verify -n ml"),
        (("--namespace", "ml"), "torchnet verify -n ml"),
        (("--namespace=ml", "--image", "r/i:1", "--nnodes", "3"), "torchnet verify -n ml --image r/i:1"),
        (("-n", "ml", "--network=ml/b*2=a.b/c", "--network", "d"), "torchnet verify -n ml --network ml/b"),
        (("-n",), "torchnet verify -n ''"),
    ],
)
def test_on_kubernetes_two_new_pods_are_tried_where_the_run_was(words: tuple[str, ...], fix: str) -> None:
    """Its own are gone."""
    assert only(typed(made(3, **SLOW), *words)).fix == fix
    mtu = only(typed(made(3, on="kubernetes", mtus={1: 1500}), *words))
    assert (mtu.kind, mtu.fix) == ("mtu", fix)


def test_on_kubernetes_what_only_the_host_can_do_says_so() -> None:
    world: dict[str, Any] = {"rate": 10e9, "round_trip": 0.02, "one_stream": 0.2, "window_limited": 0.9}
    found = only(made(2, on="kubernetes", **world))
    assert found.kind == "buffers"
    assert found.fix.startswith("sysctl -w ")
    assert found.fix.endswith("  # on the host of the pod node-0")
    assert only(made(2, **world)).fix.endswith("  # on node-0")
    bound = only(made(2, on="kubernetes", path=lambda _a, _b: 0.6, busy=0.97))
    assert bound.fix == "top -H -b -n 1  # on the host of the pod node-0"
    held = only(made(2, on="kubernetes", path=lambda _a, _b: 0.6, throttled=0.3))
    assert held.fix.endswith(" --cpus 4")


def test_a_lost_run_on_kubernetes_is_done_again_and_kept() -> None:
    results = typed(made(3, on="kubernetes"), "-n", "ml", "--env", "A=b")
    found = only(changed(results, complete=False, exit_code=70, reason="node-2 was lost"))
    assert found.fix == "torchnet bench -n ml --env A=b --keep"


def test_nothing_asks_for_a_pod_that_is_gone() -> None:
    results = made(2, on="kubernetes")
    rows = [
        row.model_copy(update={"wrong": 1, "interface_bytes": {"net1": 1 << 40}})
        for row in results.collectives
    ]
    found = find(changed(results, collectives=tuple(rows)))
    assert [one.kind for one in found] == ["wrong-results", "bytes"]
    for one in found:
        assert "on the host of the pod node-0" in one.fix
        assert "net1" not in one.fix


@pytest.mark.parametrize("words", [("--env", "SECRET=…"), ("--env=SECRET=…",)])
def test_a_benchmark_that_is_done_again_has_no_values_that_were_masked(words: tuple[str, ...]) -> None:
    results = made(2, on="kubernetes", backend="nccl", environment={"NCCL_SOCKET_IFNAME": "net1"})
    rows = [row.model_copy(update={"formula_bytes": row.formula_bytes * 2}) for row in results.collectives]
    found = only(typed(changed(results, collectives=tuple(rows)), *words, "-n", "ml", "--env", "EMPTY="))
    assert found.kind == "bytes"
    assert found.fix == "torchnet bench -n ml --env EMPTY= --env NCCL_DEBUG=INFO"


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
    assert "somebody else" in only(changed(results, collectives=tuple(rows))).text


# -- fast lines


FAST: dict[str, Any] = {
    "rate": 100e9, "known": "interface", "one_stream": 0.4, "core": 0.7, "busy": 0.05, "achieved": 0.15,
}  # fmt: skip


@pytest.mark.parametrize("core", [0.7, 0.97])
def test_a_slow_node_among_fast_ones_is_named(core: float) -> None:
    """A card that came up with 10 of its 100 Gbit/s."""
    found = find(made(6, **{**FAST, "core": core}, path=lambda a, b: 0.25 if 1 in (a, b) else 1.0))
    assert [(one.kind, one.where) for one in found] == [("slow-node", ("node-1",))]


def test_a_slow_direction_of_a_fast_pair_is_named() -> None:
    found = only(made(2, **FAST, path=lambda a, b: 0.1 if (a, b) == (1, 0) else 1.0))
    assert (found.kind, found.where) == ("asymmetry", ("node-1", "node-0"))


def test_a_fast_line_that_somebody_told_is_held_against_one_stream_as_far_as_it_is_sure() -> None:
    slow: dict[str, Any] = {**FAST, "known": "told", "one_stream": 0.05, "core": 0.2}
    found = only(made(2, **slow))
    assert found.kind == "slow-pair"
    assert "the line can carry 98." in found.text
    assert not find(made(2, **{**slow, "one_stream": 0.09}))
    found = only(made(4, **slow))
    assert "All pairs" in found.text


def test_loss_on_a_fast_line_is_told() -> None:
    found = only(made(2, **FAST, repeats=lambda a, b: 0.03 if (a, b) == (0, 1) else 0.0))
    assert found.kind == "loss"


def test_gloo_that_uses_a_core_up_on_a_fast_line_is_told_with_it() -> None:
    """All cores together say nothing: three of a hundred are one of 32."""
    found = only(made(2, **FAST, thread=0.98))
    assert found.kind == "cpu-bound"
    assert "a thread used 98 % of one core" in found.text


def test_a_slow_collective_on_a_fast_line_is_told_where_the_processor_has_time() -> None:
    assert only(made(2, **FAST, thread=0.2)).kind == "slow-collective"
    environment = {"NCCL_SOCKET_IFNAME": "net1"}
    assert (
        only(made(2, **FAST, backend="nccl", thread=1.0, environment=environment)).kind == "slow-collective"
    )
