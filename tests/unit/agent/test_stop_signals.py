"""Which signals stop a job, and what its processes get."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from torchnet.agent.events import Failure
from torchnet.agent.stop_signals import NAMES, SIGNALS, handled, interrupted, stop_signal


@pytest.fixture
def nohup() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_torchruns_four_and_those_that_are_named() -> None:
    assert handled(()) == list(SIGNALS)
    assert handled(("SIGUSR1", "SIGINT", "SIGUSR1")) == [*SIGNALS, signal.SIGUSR1]


@pytest.mark.usefixtures("nohup")
def test_an_ignored_hangup_stays_ignored_and_an_ignored_ctrl_c_does_not() -> None:
    assert handled(()) == [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_processes_get_the_same_signal_except_in_pods(name: str) -> None:
    number = signal.Signals[name]
    failure = interrupted(number)
    assert (failure.code, failure.text) == (128 + number, f"stopped by {name}")
    assert stop_signal(failure, "local") == stop_signal(failure, "agent") == number
    assert stop_signal(failure, "kubernetes") == signal.SIGTERM
    assert name in NAMES


@pytest.mark.parametrize(
    "failure",
    [
        Failure("script", "killed", 137),
        Failure("timeout", "too long", 124),
        Failure("interrupted", "?", 128 + 9),
        Failure("interrupted", "?", 255),
        Failure("interrupted", "?", 1),
    ],
)
def test_any_other_end_is_sigterm(failure: Failure) -> None:
    assert stop_signal(failure, "local") == signal.SIGTERM


def test_what_cannot_be_handled_has_no_name_here() -> None:
    assert {"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCONT", "SIGTSTP"}.isdisjoint(NAMES)
