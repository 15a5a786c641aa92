"""A healthy network has no findings, whatever the noise."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bench_results import SIZES, changed, healthy
from torchnet.bench.findings import find
from torchnet.bench.results import Results, dump, load
from torchnet.bench.worker.factors import COLLECTIVES


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


@pytest.mark.parametrize("on", ["local", "kubernetes"])
def test_all_collectives_of_a_healthy_network_are_as_they_should_be(on: str) -> None:
    results = healthy(4, collectives=COLLECTIVES, on=on)
    assert load(dump(results)) == results
    assert not find(results)


def test_a_full_queue_repeats_segments_and_that_is_no_loss() -> None:
    """Seen on healthy links of 100 Mbit/s with MTU 1500: 16 % of the segments."""
    assert not find(healthy(rate=1e8, mtu=1500, repeats=lambda _a, _b: 0.1))


def test_a_run_that_somebody_ended_is_no_finding() -> None:
    assert not find(changed(healthy(), complete=False, exit_code=130, reason="interrupted"))


def test_results_without_anything_measured_are_no_finding() -> None:
    assert not find(
        changed(healthy(), nodes=(), lines=(), collectives=(), tcp=(), latency=(), backend_share=None)
    )
    assert not find(changed(healthy(), setup=None, nodes=(), lines=(), collectives=(), tcp=(), latency=()))
