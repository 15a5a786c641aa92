"""Steps, rates and idle time from samples: planted ones are found, and nothing is invented."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torchnet.receipt.step_timing import _reach, _spaced, rhythm

SAMPLE = 0.005
FULL = 600_000.0  # bytes of a full sample


def steps(
    count: int, size: float, pause: int, *, seed: int = 0, jitter: float = 0.0, holes: int = 0
) -> list[float]:
    """``count`` steps: ``size`` bytes at the full rate, ``holes`` short silences at random places within, a pause."""
    rng = random.Random(seed)
    series: list[float] = []
    for _ in range(count):
        left = size * (1 + rng.uniform(-0.001, 0.001))
        cuts = sorted(rng.uniform(0, left) for _ in range(holes))
        while left > 0:
            if cuts and left < cuts[-1]:
                cuts.pop()
                series += [0.0] * rng.randint(1, 3)
            series.append(min(FULL, left))
            left -= FULL
        series += [0.0] * max(1, round(pause * (1 + rng.uniform(-jitter, jitter))))
    return series


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(20, 40),
    samples=st.integers(25, 90),
    # With fewer steps, or more silences within, now and then two steps look like one.
    pause=st.integers(8, 60),
    jitter=st.floats(0, 0.4),
    holes=st.integers(0, 2),
    seed=st.integers(0, 1000),
)
# Twice the step has more silences within its reach.
@example(count=31, samples=61, pause=8, jitter=0.0, holes=2, seed=63)
def test_planted_steps_are_found(
    count: int, samples: int, pause: int, jitter: float, holes: int, seed: int
) -> None:
    size = samples * FULL
    series = steps(count, size, pause, seed=seed, jitter=jitter, holes=holes)
    found = rhythm([[0.0] * 300 + series + [0.0] * 80], SAMPLE)
    assert found.why == ""
    assert found.step_bytes == pytest.approx(size, rel=0.02)
    assert found.steps_per_s == pytest.approx(count / (len(series) * SAMPLE), rel=0.15)
    assert found.rate == pytest.approx(FULL / SAMPLE, rel=0.05)
    assert found.step_active_s == pytest.approx(samples * SAMPLE, rel=0.1)
    assert found.idle_share == pytest.approx(1 - count * samples / len(series), abs=0.08)


def at_random(seed: int, mean: int, pause: int) -> list[float]:
    """5,000 samples: bursts and silences of random length, ``mean`` and ``pause`` samples long on average."""
    rng = random.Random(seed)
    series: list[float] = []
    while len(series) < 5000:
        for _ in range(1 + int(rng.expovariate(1 / mean))):
            series.append(FULL * rng.uniform(0.2, 1))
        series += [0.0] * (1 + int(rng.expovariate(1 / pause)))
    return series


def test_bursts_at_random_are_no_steps() -> None:
    """Always the same series: of those with few bursts, one in ten thousand does look as if it had six steps."""
    rng = random.Random(1)
    cases = [(seed, rng.randint(2, 80), rng.randint(1, 60)) for seed in range(100)]
    # In these two, some distances between silences agree that are too long for six of them to fit in.
    for case in [*cases, (5726, 61, 45), (563, 68, 48)]:
        found = rhythm([at_random(*case)], SAMPLE)
        assert (found.steps_per_s, found.step_bytes, found.step_active_s) == (None, None, None), case
        assert found.why


def test_noise_and_a_full_line_have_no_steps() -> None:
    rng = random.Random(5)
    for series in ([rng.uniform(0, FULL) for _ in range(4000)], [FULL] * 4000):
        assert rhythm([series], SAMPLE).steps_per_s is None
    assert rhythm([[FULL] * 4000], SAMPLE).idle_share == pytest.approx(0, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**9), max_size=60), max_size=4))
def test_anything_is_read(blocks: list[list[int]]) -> None:
    found = rhythm(blocks, SAMPLE)
    assert found.idle_share is None or 0 <= found.idle_share <= 1
    assert found.rate is None or found.rate >= 0


def test_nothing_is_nothing() -> None:
    cases: list[list[list[float]]] = [[], [[]], [[0.0] * 100], [[0.0], []]]
    for blocks in cases:
        found = rhythm(blocks, SAMPLE)
        assert (bool(found.why), found.idle_share, found.rate) == (True, None, None)


def test_a_trickle_is_no_traffic() -> None:
    """Acknowledgements and heartbeats between the bursts: no burst is longer for them."""
    series = steps(20, 20 * FULL, 20)
    trickling = [one or 0.02 * FULL for one in series]
    found = rhythm([trickling], SAMPLE)
    assert found.idle_share == pytest.approx(0.5, abs=0.05)
    assert found.steps_per_s == pytest.approx(1 / (40 * SAMPLE), rel=0.03)


def test_bursts_shorter_than_a_sample_tell_steps_but_no_rate() -> None:
    series = ([42_000.0, 0.0, 0.0, 0.0]) * 200
    found = rhythm([series], SAMPLE)
    assert found.steps_per_s == pytest.approx(1 / (4 * SAMPLE), rel=0.01)
    assert found.step_bytes == pytest.approx(42_000, rel=0.01)
    assert (found.rate, found.peak, found.idle_share, found.step_active_s) == (None, None, None, None)
    assert " 5 ms" in found.why


def test_blocks_with_gaps_between_them_are_one_training() -> None:
    series = steps(40, 20 * FULL, 20)
    cut = [series[:400], series[700:1100], series[1307:]]
    found = rhythm(cut, SAMPLE)
    assert found.steps_per_s == pytest.approx(1 / (40 * SAMPLE), rel=0.03)
    assert found.step_bytes == pytest.approx(20 * FULL, rel=0.01)


def test_samples_at_a_burst_s_ends_count_as_far_as_they_are_full() -> None:
    burst = [0.1 * FULL, FULL, FULL, FULL, 0.1 * FULL]
    found = rhythm([(burst + [0.0] * 5) * 50], SAMPLE)
    assert found.rate == pytest.approx(FULL / SAMPLE, rel=0.01)
    assert found.step_active_s == pytest.approx(3.2 * SAMPLE, rel=0.01)
    assert found.idle_share == pytest.approx(0.68, abs=0.01)


def test_of_many_sizes_few_are_looked_at_and_none_is_far_from_one() -> None:
    rng = random.Random(3)
    sizes = sorted(rng.uniform(0, 3e9) for _ in range(200_000))
    looked = list(_spaced(sizes))
    assert len(looked) < 10_000
    assert looked[0] > _reach(looked[0])
    for size in sizes[:: len(sizes) // 500]:
        below = [one for one in looked if one <= size]
        assert not below or size - below[-1] <= _reach(below[-1]) / 8
