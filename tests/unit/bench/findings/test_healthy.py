"""A healthy network has no findings, whatever the noise."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bench_results import SIZES, changed, healthy
from torchnet.bench.findings import find
from torchnet.bench.results import Results, dump, load
from torchnet.bench.worker.busbw import COLLECTIVES


def kinds(results: Results) -> list[str]:
    return [finding.kind for finding in find(results)]


@settings(max_examples=60, deadline=None)
@given(
    nodes=st.integers(2, 8),
    seed=st.integers(0, 1 << 30),
    noise=st.sampled_from([0.001, 0.01, 0.03]),
    rate=st.sampled_from([1e9, 2.5e9, 25e9]),
    mtu=st.sampled_from([1500, 9000]),
    pairs=st.sampled_from(["ring", "all"]),
    streams=st.sampled_from([(1,), (4,), (1, 4)]),
    compare=st.sampled_from(["", "eth0"]),
)
def test_a_healthy_network_has_no_findings(nodes: int, noise: float, **fields: object) -> None:
    results = healthy(
        nodes, noise=noise, wander=noise / 2, sizes=SIZES[::2], collectives=("all_reduce", "reduce"), **fields
    )
    assert not find(results)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 8), st.integers(0, 1 << 30), st.sampled_from([0.02, 0.1]), st.sampled_from(["ring", "all"])
)
def test_nothing_is_missing_where_no_line_is_known_and_the_processor_limits(
    nodes: int, seed: int, noise: float, pairs: str
) -> None:
    """Repeats, pairs that differ by a quarter and wide intervals are usual there."""
    draw = random.Random(seed)
    paths = {(a, b): draw.uniform(0.75, 1.0) for a in range(nodes) for b in range(nodes)}
    results = healthy(
        nodes,
        seed=seed,
        rate=None,
        noise=noise,
        wander=noise / 2,
        pairs=pairs,
        sizes=SIZES[::2],
        path=lambda a, b: paths[a, b],
        repeats=lambda _a, _b: 0.02,
    )
    assert not find(results)


def fast(nodes: int = 2, seed: int = 0, rate: float = 100e9, gbit: float = 15, **fields: Any) -> Results:
    """A fast line, of which one stream reaches 20 to 50 Gbit/s, as its cores' places are, and a collective ``gbit``;
    nothing is wrong."""
    draw = random.Random(seed)
    one = min(40e9 / rate, 0.8)
    paths = {(a, b): draw.uniform(0.5, 1.25) for a in range(nodes) for b in range(nodes)}
    world: dict[str, Any] = {
        "rate": rate,
        "known": "interface",
        "on": "kubernetes",
        "one_stream": one,
        "core": 0.7,
        "busy": 0.05,
        "achieved": min(gbit * 1e9 / rate, 0.95),
        "noise": 0.03,
        "wander": 0.015,
        "sizes": SIZES[::2],
        "path": lambda a, b: paths[a, b],
    }
    return healthy(nodes, seed=seed, **{**world, **fields})


FAST = st.fixed_dictionaries(
    {
        "nodes": st.sampled_from([2, 3, 8]),
        "seed": st.integers(0, 1 << 30),
        "rate": st.sampled_from([25e9, 50e9, 100e9, 400e9]),
        "known": st.sampled_from(["interface", "told"]),
        "mtu": st.sampled_from([1500, 9000]),
        "per_node": st.sampled_from([1, 8]),
        "pairs": st.sampled_from(["ring", "all"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(FAST, st.sampled_from([None, 0.6]), st.sampled_from([0.002, 0.0]))
def test_one_stream_that_does_not_fill_a_fast_line_is_usual(
    world: dict[str, Any], thread: float | None, repeats: float
) -> None:
    assert not find(fast(**world, thread=thread, repeats=lambda _a, _b: repeats))


@settings(max_examples=40, deadline=None)
@given(FAST)
def test_nccl_on_a_fast_line_is_usual_too_and_its_threads_that_spin_say_nothing(
    world: dict[str, Any],
) -> None:
    environment = {"NCCL_SOCKET_IFNAME": "net1"}
    assert not find(fast(**world, backend="nccl", thread=1.0, gbit=30, environment=environment))


@settings(max_examples=40, deadline=None)
@given(FAST)
def test_of_a_stream_that_uses_its_core_up_only_that_is_told(world: dict[str, Any]) -> None:
    found = find(fast(**{**world, "rate": max(100e9, world["rate"])}, core=0.97))
    assert [one.kind for one in found] == ["single-stream"]
    assert "97 % of one core" in found[0].text
    assert found[0].fix.endswith(" --streams 4")


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_among_thousands_of_pairs_of_a_fast_line_none_is_slow(backend: str) -> None:
    assert not find(
        fast(64, backend=backend, batches=3, slices=6, per_node=8, environment={"NCCL_SOCKET_IFNAME": "net1"})
    )


@pytest.mark.parametrize(("rate", "share", "core"), [(50e9, 0.5, 0.3), (2e9, 0.5, 0.7), (100e9, 0.05, 0.7)])
def test_one_stream_has_a_part_of_a_bond_and_a_slow_core_has_slow_streams(
    rate: float, share: float, core: float
) -> None:
    """2 x 25 Gbit/s is as fast as one stream may be; with 0.7 of a core, another one may be its limit."""
    for nodes in (2, 4):
        results = fast(
            nodes, rate=rate, one_stream=share, achieved=share * 0.9, core=core, path=lambda _a, _b: 1.0
        )
        assert not find(results)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_several_streams_on_a_fast_line_are_usual(share: float) -> None:
    """Four streams at 30 of 100 Gbit/s are still their cores'; Gloo, with one thread, reaches less."""
    assert not find(fast(4, streams=(4,), rate=100e9, path=lambda _a, _b: max(share, 0.35), achieved=0.4))


def test_round_trips_that_wait_for_a_processor_need_no_buffers() -> None:
    """Half a millisecond to wake up, on a path of 20 µs."""
    results = fast(window_limited=0.2)
    rows = [row.model_copy(update={"p50": 5e-4, "least": 2e-5}) for row in results.latency]
    assert not find(changed(results, latency=tuple(rows)))


@pytest.mark.parametrize(
    "told", [{"NCCL_IB_HCA": "=mlx5_0"}, {"NCCL_NET": "AWS Libfabric"}, {"NCCL_NET_PLUGIN": "x"}]
)
@pytest.mark.parametrize("sockets", [0, 30_000])
def test_rdma_sends_nothing_over_sockets(told: dict[str, str], sockets: int) -> None:
    results = fast(backend="nccl", gbit=90, environment={"NCCL_SOCKET_IFNAME": "net1", **told})
    rows = [
        row.model_copy(update={"sockets_bytes": {"net1": sockets}, "interface_bytes": {"net1": 90_000}})
        for row in results.collectives
    ]
    assert not find(changed(results, collectives=tuple(rows)))


def test_a_fast_stream_that_repeats_segments_where_no_line_is_known_is_its_cores() -> None:
    results = healthy(4, rate=None, noise=0.25, path=lambda a, b: 0.6 if 1 in (a, b) else 1.0)
    rows = [
        row.model_copy(update={"core": 0.5, "busy": 0.05, "repeated": row.segments // 50})
        for row in results.tcp
        if not row.both
    ]
    collectives = [row.model_copy(update={"busy": 0.05}) for row in results.collectives]
    found = kinds(changed(results, tcp=tuple(rows), collectives=tuple(collectives)))
    assert "loss" not in found
    assert "slow-node" not in found


@pytest.mark.parametrize("on", ["local", "kubernetes"])
def test_all_collectives_of_a_healthy_network_are_as_they_should_be(on: str) -> None:
    results = healthy(4, collectives=COLLECTIVES, on=on)
    assert load(dump(results)) == results
    assert not find(results)


def test_a_line_that_carries_more_than_was_told_is_none() -> None:
    """--line 8gbit where there are 10: what is missing of it, and what its queues drop, cannot be said."""
    results = healthy(4, rate=10e9, known="told", busy=0.5, repeats=lambda _a, _b: 0.01)
    assert results.lines[0].ceiling
    told = results.lines[0].model_copy(
        update={"rate_bits_per_s": 8e9, "ceiling": results.lines[0].ceiling * 0.8}
    )
    assert kinds(changed(results, lines=(told,))) == []
    assert kinds(results) == ["loss"]


def test_a_full_queue_repeats_segments_and_that_is_no_loss() -> None:
    """Seen on healthy links of 100 Mbit/s with MTU 1500: 16 % of the segments."""
    assert not find(healthy(rate=1e8, mtu=1500, repeats=lambda _a, _b: 0.1))


def test_a_run_that_somebody_ended_is_no_finding() -> None:
    assert not find(
        changed(healthy(), complete=False, exit_code=130, reason="interrupted", ended="interrupted")
    )


def test_results_without_anything_measured_are_no_finding() -> None:
    assert not find(
        changed(healthy(), nodes=(), lines=(), collectives=(), tcp=(), latency=(), backend_share=None)
    )
    assert not find(changed(healthy(), setup=None, nodes=(), lines=(), collectives=(), tcp=(), latency=()))
