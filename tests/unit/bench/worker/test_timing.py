"""How many calls a batch has, and when it is enough: the same on all ranks, from the same figures."""

from __future__ import annotations

import importlib.util
import itertools
import operator
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

from torchnet.bench.worker import timing
from torchnet.bench.worker.stats import median
from torchnet.bench.worker.timing import BATCH, LARGE, Rule, is_enough, next_batches

CALL = st.floats(1e-7, 100)


class _World:
    """A clock and a world of two ranks: here a call takes what the list says, over and over, and there half of it, so
    that the mean is three quarters."""

    def __init__(self, calls: list[float]) -> None:
        self.calls, self.made, self.now, self.barriers = calls, 0, 0.0, 0
        self.marks: list[float] = []
        self.stretches: list[
            list[int]
        ] = []  # how many calls had been made: when it began, and after each batch

    def run(self) -> None:
        self.now += self.calls[self.made % len(self.calls)]
        self.made += 1

    def begin(self) -> None:
        self.marks = [self.now]
        self.stretches.append([self.made])

    def lap(self) -> None:
        self.marks.append(self.now)
        self.stretches[-1].append(self.made)

    def laps(self) -> list[float]:
        return [then - now for now, then in itertools.pairwise(self.marks)]

    def most(self, *figures: float) -> list[float]:
        return list(figures)

    def mean(self, figures: list[float]) -> list[float]:
        return [0.75 * one for one in figures]

    def barrier(self) -> None:
        self.barriers += 1

    def measure(self, call: float, rule: Rule, *, slowest: bool = False) -> timing.Timed:
        return timing.measure(self.run, call, rule, cast("timing.Agreement", self), self, slowest=slowest)


@given(calls=st.lists(st.floats(1e-5, 20), min_size=1, max_size=7), guess=CALL, iters=st.integers(1, 300))
@example(calls=[1.0], guess=0.015625, iters=7)  # not divided by five: no batch is left empty for it
@settings(deadline=None)
def test_exactly_so_many_calls(calls: list[float], guess: float, iters: int) -> None:
    world = _World(calls)
    timed = world.measure(guess, Rule(seconds=0.001, narrow=0.5, iters=iters))
    assert timed.calls == iters
    assert timed.all_calls == world.made == iters + world.stretches[0][0]
    assert len(timed.times) >= min(iters, 5)
    assert world.barriers == 1


@given(
    calls=st.lists(st.floats(1e-4, 0.05), min_size=1, max_size=7)
    | st.lists(st.floats(1e-4, 20), min_size=1, max_size=7),
    guess=st.floats(1e-4, 20),
)
@settings(deadline=None)
def test_time_is_kept(calls: list[float], guess: float) -> None:
    rule = Rule(seconds=1.0, narrow=0.0)
    world = _World(calls)
    timed = world.measure(guess, rule)
    assert timed.all_calls == world.made
    assert timed.calls < timed.all_calls
    assert len(timed.times) >= (2 if min(timed.times) > rule.seconds else 3)
    # What is begun is what the calls until then let expect within the time; one batch more at most, and the least.
    spent, batches, call = 0.0, 0, guess
    for marks in world.stretches:
        counts = [then - now for now, then in itertools.pairwise(marks)]
        least = 3 if call >= LARGE else 6
        one = rule.seconds / 10 + call
        assert all(count * call <= 1.01 * one for count in counts)
        if batches < least:
            assert batches + len(counts) <= least
        else:
            assert spent < rule.seconds
            assert sum(counts) * call <= 1.01 * max(rule.seconds - spent, one)
        spent += sum(map(operator.mul, timed.times[batches:], counts))
        batches += len(counts)
        call = median(timed.times[:batches]).value
    assert batches == len(timed.times)


def test_what_is_steady_is_known_soon() -> None:
    rule = Rule(seconds=10.0, narrow=0.02)
    world = _World([0.0001])
    small = world.measure(0.0001, rule)
    assert len(small.times) == 6
    assert small.calls == 200 + 5 * 267, "by what the ranks' mean says"
    assert small.times == [pytest.approx(0.000075)] * 6
    assert world.barriers == 2, "one batch, whose guess may be wrong, and the others at one stretch"
    large = _World([1.5 * LARGE])
    assert len(large.measure(1.5 * LARGE, rule).times) == 3
    assert large.barriers == 1


def test_what_varies_takes_all_the_time() -> None:
    calls = [0.02] * 7 + [0.04] * 7
    timed = _World(calls).measure(0.02, Rule(seconds=4.0, narrow=0.02))
    assert sum(timed.times) / len(timed.times) * timed.calls == pytest.approx(4.0, abs=1.0)


def test_what_comes_first_after_a_barrier_is_not_timed() -> None:
    """A bucket that was full, and ranks that have not yet waited for each other."""
    world = _World([0.0001] * 10 + [0.02] * 10_000)
    timed = world.measure(0.02, Rule(seconds=0.4, narrow=0.02))
    assert world.stretches[0][0] == 1
    world = _World([0.00001] * 16 + [0.001] * 10_000)
    timed = world.measure(0.001, Rule(seconds=0.2, narrow=0.02))
    assert world.stretches[0][0] == 16
    assert min(timed.times) == pytest.approx(0.00075)


@pytest.mark.parametrize(("slowest", "time"), [(False, 0.00075), (True, 0.001)])
def test_where_a_rank_need_not_wait_for_the_others_the_slowest_counts(slowest: bool, time: float) -> None:
    timed = _World([0.001]).measure(0.001, Rule(seconds=0.2, narrow=0.02), slowest=slowest)
    assert timed.times == [pytest.approx(time)] * len(timed.times)


@given(call=CALL, seconds=st.floats(0.01, 100), batches=st.integers(0, 9), part=st.floats(0, 1))
def test_a_batch_is_long_enough_and_a_stretch_no_longer_than_the_time(
    call: float, seconds: float, batches: int, part: float
) -> None:
    counts = next_batches(call, 0, batches, part * seconds, Rule(seconds, 0.02))
    assert len(set(counts)) == 1
    count = counts[0]
    assert count * call >= min(BATCH, seconds / 3) * 0.99 or count == 100_000
    assert count == 1 or (count - 1) * call <= max(BATCH, seconds / 10)
    assert len(counts) <= 10
    if len(counts) > 6:
        assert sum(counts) * call <= (1 - part) * seconds * 1.01


def test_a_wrong_guess_is_mended_by_what_is_measured() -> None:
    """The first calls of all may take a thousand times as long as the others."""
    world = _World([0.0001])
    timed = world.measure(1.0, Rule(seconds=1.0, narrow=0.0))
    assert timed.calls / len(timed.times) > 50


@given(times=st.lists(st.floats(0.001, 5), max_size=12), spent=st.floats(0, 10))
def test_never_less_than_two_batches(times: list[float], spent: float) -> None:
    if is_enough(times, spent, Rule(1.0, 0.02)):
        assert len(times) >= 2
        if min(times) <= 1.0:
            assert len(times) >= 3


def test_without_a_warm_up_one_call_tells_how_long_they_are() -> None:
    world = _World([0.5, 0.1])
    agreement = cast("timing.Agreement", world)
    assert timing.warm_up(world.run, 0, agreement, world) == 0.5
    assert world.made == 1
    assert timing.warm_up(world.run, 3, agreement, world) == pytest.approx(0.1)
    assert world.made == 4
