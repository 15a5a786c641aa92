"""How many calls a batch has, and when it is enough: the same on all ranks, from the same figures."""

from __future__ import annotations

import importlib.util
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

from torchnet.bench.worker import timing
from torchnet.bench.worker.timing import BATCH, LARGE, Rule, enough, next_batch

CALL = st.floats(1e-7, 100)


class _World:
    """A clock and a world of one, in which a call takes what the list says, over and over."""

    def __init__(self, calls: list[float]) -> None:
        self.calls, self.made, self.now, self.began, self.barriers = calls, 0, 0.0, 0.0, 0

    def run(self) -> None:
        self.now += self.calls[self.made % len(self.calls)]
        self.made += 1

    def begin(self) -> None:
        self.began = self.now

    def end(self) -> float:
        return self.now - self.began

    def most(self, *figures: float) -> list[float]:
        return list(figures)

    def barrier(self) -> None:
        self.barriers += 1

    def measure(self, call: float, rule: Rule) -> timing.Timed:
        return timing.measure(self.run, call, rule, cast("timing.Agreement", self), self)


@given(calls=st.lists(st.floats(1e-5, 20), min_size=1, max_size=7), guess=CALL, iters=st.integers(1, 300))
@settings(deadline=None)
def test_exactly_so_many_calls(calls: list[float], guess: float, iters: int) -> None:
    world = _World(calls)
    timed = world.measure(guess, Rule(seconds=0.001, narrow=0.5, iters=iters))
    assert timed.calls == world.made == iters
    assert len(timed.times) >= min(iters, 5)
    assert world.barriers == len(timed.times)


@given(calls=st.lists(st.floats(1e-4, 20), min_size=1, max_size=7), guess=st.floats(1e-4, 20))
@settings(deadline=None)
def test_time_is_kept(calls: list[float], guess: float) -> None:
    rule = Rule(seconds=1.0, narrow=0.0)
    world = _World(calls)
    timed = world.measure(guess, rule)
    assert timed.calls == world.made
    assert len(timed.times) >= (2 if min(timed.times) > rule.seconds else 3)
    # the last batch is begun before the time is up; three there always are, two of calls that are longer than it
    assert world.now <= rule.seconds + 3 * max(calls) * 201


def test_what_is_steady_is_known_soon() -> None:
    rule = Rule(seconds=10.0, narrow=0.02)
    small = _World([0.0001]).measure(0.0001, rule)
    assert len(small.times) == 6
    assert small.calls == pytest.approx(
        6 * 200, abs=6
    )  # a sum of 200 times 0.0001 is not 0.02 to the last digit
    assert small.times[0] == pytest.approx(0.0001)
    assert len(_World([LARGE]).measure(LARGE, rule).times) == 3


def test_what_varies_takes_all_the_time() -> None:
    timed = _World([0.02, 0.04]).measure(0.02, Rule(seconds=1.0, narrow=0.02))
    assert sum(timed.times) == pytest.approx(1.0, abs=0.05)


@given(call=CALL, seconds=st.floats(0.01, 100))
def test_a_batch_is_long_enough_for_the_barriers_skew(call: float, seconds: float) -> None:
    count = next_batch(call, 0, Rule(seconds, 0.02))
    assert count >= 1
    assert count * call >= min(BATCH, seconds / 3) * 0.99 or count == 100_000
    assert count == 1 or (count - 1) * call <= BATCH


def test_a_wrong_guess_is_mended_by_what_is_measured() -> None:
    """The first calls of all may take a thousand times as long as the others."""
    world = _World([0.0001])
    timed = world.measure(1.0, Rule(seconds=1.0, narrow=0.0))
    assert timed.calls / len(timed.times) > 100


@given(times=st.lists(st.floats(0.001, 5), max_size=12), spent=st.floats(0, 10))
def test_never_less_than_two_batches(times: list[float], spent: float) -> None:
    if enough(times, spent, Rule(1.0, 0.02)):
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
