"""Slow calls in a few threads."""

from __future__ import annotations

import threading
import time

import pytest

from torchnet.k8s.client.parallel import parallel


def test_the_answers_are_in_the_arguments_order() -> None:
    def call(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number * number

    assert parallel(call, range(40)) == [number * number for number in range(40)]
    assert parallel(call, []) == []


def test_no_more_threads_than_allowed_run_at_a_time() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def call(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    parallel(call, range(20), threads=4)
    assert most == 4


def test_after_a_failure_no_more_calls_are_begun() -> None:
    begun: list[int] = []

    def call(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise ValueError("two")

    with pytest.raises(ValueError, match="two"):
        parallel(call, range(100), threads=1)
    assert begun == [0, 1, 2]


def test_of_several_errors_the_one_that_matters_most_is_raised() -> None:
    begun = threading.Barrier(4)

    def call(number: int) -> None:
        begun.wait(10)
        time.sleep(0.05 * number)
        raise KeyError(number) if number == 2 else ValueError(number)

    with pytest.raises(KeyError):
        parallel(call, range(4), first=lambda error: isinstance(error, KeyError))
    with pytest.raises(ValueError, match="0"):
        parallel(call, range(4))
