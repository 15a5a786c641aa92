"""The agent's loop: readiness, timers, signals; and no error that disappears in it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from torchnet.agent.event_loop import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop()
    yield made
    made.close()


@pytest.mark.parametrize("error", [KeyError, ValueError, OSError, AssertionError])
@pytest.mark.parametrize("where", ["read", "write", "timer"])
def test_an_error_in_a_callback_reaches_the_caller(
    loop: EventLoop, where: str, error: type[Exception]
) -> None:
    def fail() -> None:
        raise error("of the callback")

    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    if where == "timer":
        loop.later(0, fail)
    else:
        loop.watch(ours, **{where: fail})
    with pytest.raises(error, match="of the callback"):
        loop.run()
    loop.watch(ours)
    ours.close()
    theirs.close()


def test_a_callback_may_close_what_is_ready_as_well(loop: EventLoop) -> None:
    pairs = [socket.socketpair() for _ in range(5)]
    called: list[int] = []

    def close_all(number: int) -> None:
        called.append(number)
        for ours, _ in pairs:
            loop.watch(ours)
            ours.close()

    for number, (ours, theirs) in enumerate(pairs):
        theirs.send(b"x")
        loop.watch(ours, lambda number=number: close_all(number), lambda number=number: close_all(number))  # type: ignore[misc]
    loop.later(0.05, loop.stop)
    loop.run()
    assert len(called) == 1
    for _, theirs in pairs:
        theirs.close()


def test_timers_run_in_order_and_not_when_cancelled(loop: EventLoop) -> None:
    order: list[str] = []
    loop.later(0.03, lambda: order.append("c"))
    loop.later(0.01, lambda: order.append("a"))
    loop.later(0.01, lambda: order.append("b"))
    loop.later(0.02, lambda: order.append("never")).cancel()
    again = loop.every(0.01, lambda: order.append("."))
    loop.later(0.06, again.cancel)
    loop.later(0.1, loop.stop)
    loop.run()
    assert [one for one in order if one != "."] == ["a", "b", "c"]
    assert 2 <= order.count(".") <= 6


def test_a_timer_that_cancels_itself_or_another_is_obeyed(loop: EventLoop) -> None:
    calls: list[int] = []

    def once() -> None:
        calls.append(1)
        timer.cancel()

    timer = loop.every(0.005, once)
    other = loop.later(0.02, lambda: calls.append(2))
    loop.later(0.01, other.cancel)
    loop.later(0.05, loop.stop)
    loop.run()
    assert calls == [1]


def test_signals_are_served_from_the_loop_and_given_back() -> None:
    loop = EventLoop()
    got: list[float] = []
    loop.on_signal(signal.SIGUSR1, lambda: got.append(time.monotonic()))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert got == []
    loop.later(0.05, loop.stop)
    loop.run()
    assert len(got) == 1
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_a_watch_can_be_changed_and_taken_back(loop: EventLoop) -> None:
    ours, theirs = socket.socketpair()
    heard: list[str] = []

    def first() -> None:
        heard.append("first")
        loop.watch(ours, second)

    def second() -> None:
        heard.append("second")
        loop.watch(ours)

    theirs.send(b"x")
    loop.watch(ours, first)
    loop.watch(theirs)  # nobody watches it: no error
    loop.later(0.05, loop.stop)
    loop.run()
    assert heard == ["first", "second"]
    ours.close()
    loop.watch(ours)  # closed already: no error
    theirs.close()
