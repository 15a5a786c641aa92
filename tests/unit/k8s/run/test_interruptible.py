"""Slow calls that a signal comes into."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial

import pytest

from tests.unit.aside import aside, hearing, interrupt
from torchnet.k8s.run.interruptible import Interrupted, in_thread
from torchnet.signals import Signals

signals = pytest.fixture(hearing)


def test_a_call_is_told_at_once_and_its_result_is_there(signals: Signals) -> None:
    told = threading.Event()
    began = time.monotonic()
    with aside(0.2, partial(interrupt, signal.SIGHUP)), pytest.raises(Interrupted) as caught:
        in_thread(lambda: told.wait(20) and "done", signals, on_signal=told.set)
    assert time.monotonic() - began < 2, "not after the patience"
    assert caught.value.number == signal.SIGHUP
    assert caught.value.call.result() == "done"


def test_what_a_call_raised_meanwhile_is_not_lost(signals: Signals) -> None:
    told = threading.Event()

    def fail() -> None:
        told.wait(20)
        raise ValueError("its own")

    with aside(0.2, interrupt), pytest.raises(Interrupted) as caught:
        in_thread(fail, signals, on_signal=told.set)
    assert isinstance(caught.value.call.error, ValueError)


def test_one_that_does_not_end_is_left_after_the_patience(signals: Signals) -> None:
    forever = threading.Event()
    with aside(0.2, interrupt), pytest.raises(Interrupted) as caught:
        in_thread(lambda: forever.wait(20), signals, patience=0.3)
    assert not caught.value.call.wait(0)
    assert caught.value.call.result() is None
    forever.set()


def test_without_a_signal_there_is_its_result_or_its_error(signals: Signals) -> None:
    assert in_thread(lambda: 7, signals) == 7
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 / 0, signals)
