"""Signals between the jobs of a benchmark, sent to this process for real."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from torchnet.bench import stop

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    kept = {one: signal.getsignal(one) for one in NUMBERS}
    yield
    for one, handler in kept.items():
        signal.signal(one, handler)


def between_two_jobs(number: signal.Signals, before: stop.Handlers) -> None:
    with stop.listening(before):
        with stop.job(before):
            signal.signal(number, signal.SIG_IGN)  # what a session leaves behind
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_between_two_jobs_ends_the_benchmark(number: signal.Signals) -> None:
    before = stop.handlers()
    with pytest.raises(KeyboardInterrupt) as caught:
        between_two_jobs(number, before)
    assert stop.code_of(caught.value) == 128 + number
    assert stop.name_of(128 + number) == number.name
    os.kill(os.getpid(), number)  # the results are being written


def test_a_job_finds_the_signals_as_the_first_one_did() -> None:
    before = stop.handlers()
    with stop.listening(before), stop.job(before):
        assert stop.handlers() == before


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = stop.handlers()
    assert signal.SIGHUP not in before
    with stop.listening(before):
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.code_of(KeyboardInterrupt()) == 130
    assert stop.name_of(4) == ""
