"""Signals that are queued, sent to this process for real."""

from __future__ import annotations

import os
import signal

import pytest

from tests.unit.signal_handlers import NUMBERS, kept
from torchnet.signals import Signals

as_before = pytest.fixture(autouse=True)(kept)


def test_signals_are_queued_and_the_handlers_return() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with Signals() as signals:
        assert not signals.received
        for number in NUMBERS:
            os.kill(os.getpid(), number)
        assert signals.take() == list(NUMBERS)
        assert signals.take() == []
        assert signals.last == NUMBERS[-1]
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not signals.received
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
