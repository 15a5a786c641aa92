"""Signals around the job of a benchmark, sent to this process for real."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.unit.signal_handlers import NUMBERS, Finalizer, kept
from torchnet.agent.event_loop import EventLoop
from torchnet.bench import interruption

as_before = pytest.fixture(autouse=True)(kept)


def behind_a_job(number: signal.Signals, heard: list[int]) -> None:
    """A job hears its own signals, and gives them back."""
    loop = EventLoop()

    def hear() -> None:
        heard.append(number)
        loop.stop()

    with interruption.BenchSignals():
        loop.on_signal(number, hear)
        os.kill(os.getpid(), number)
        loop.run()
        loop.close()
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_behind_a_job_ends_the_benchmark(number: signal.Signals) -> None:
    heard: list[int] = []
    with pytest.raises(KeyboardInterrupt) as caught:
        behind_a_job(number, heard)
    assert heard == [number]
    assert interruption.exit_code_of(caught.value) == 128 + number
    assert interruption.signal_name(128 + number) == number.name
    os.kill(os.getpid(), number)  # the results are being written


def as_a_job_ends(number: signal.Signals) -> None:
    loop = EventLoop()
    with interruption.BenchSignals():
        loop.on_signal(number, lambda: None)
        os.kill(os.getpid(), number)  # the loop has ended, and nobody looks any more
        loop.close()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_that_comes_as_a_job_ends_is_its_callers(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        as_a_job_ends(number)


def lost_in_a_finalizer(signals: interruption.BenchSignals) -> None:
    with signals:
        Finalizer()
        signals.check()


def test_a_signal_whose_exception_was_lost_is_heard_behind_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(KeyboardInterrupt) as caught:
        lost_in_a_finalizer(interruption.BenchSignals())
    assert len(ignored) == 1
    assert interruption.exit_code_of(caught.value) == 130
    interruption.BenchSignals().check()


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruption.BenchSignals():
        os.kill(os.getpid(), signal.SIGHUP)
    assert interruption.exit_code_of(KeyboardInterrupt()) == 130


def test_a_loop_without_such_a_caller_leaves_what_the_kernel_does() -> None:
    loop = EventLoop()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    loop.on_signal(signal.SIGINT, loop.stop)
    loop.close()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
