"""What counts as progress: the polls of a store do not, a small collective does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from torchnet.agent.progress_meter import RATE, STORE_RATE, ProgressMeter


class Worker:
    """A meter of sockets that move what the test says, each second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.payloads: dict[int, int] = {}
        self.meter = ProgressMeter(lambda: self.now)

    def move(
        self, sockets: Sequence[int], *, closed: int = 0, seconds: float = 1.0, store: bool = False
    ) -> int:
        """Let each socket, by position, move so many bytes; the readings with progress so far."""
        self.now += seconds
        for cookie, count in enumerate(sockets):
            self.payloads[cookie] = self.payloads.get(cookie, 0) + count
        self.meter.update([(*item, store) for item in self.payloads.items()], closed)
        return self.meter.count


def connected(sockets: int) -> Worker:
    """A worker whose sockets have just connected, which is its first progress."""
    worker = Worker()
    assert worker.move([70] * sockets) == 1
    worker.meter.count = 0
    return worker


def test_a_rate_is_progress_whatever_the_sum_of_polls_is() -> None:
    worker = connected(10)
    for _ in range(2000):
        worker.move([35, 70, *[0, 105] * 4])
    assert (worker.meter.count, worker.meter.trickle) == (0, 2000)
    assert worker.move([35, RATE - 35]) == 1
    assert worker.move([34, RATE - 35]) == 1
    assert worker.move([0], closed=RATE) == 2
    assert worker.move([0], closed=RATE) == 2


def test_polls_of_the_store_do_not_add_up() -> None:
    worker = connected(1000)
    for _ in range(60):
        worker.move([70] * 1000, store=True)
    assert (worker.meter.count, worker.meter.trickle) == (0, 0)


@pytest.mark.parametrize("reading", [1, 2, 5])
@pytest.mark.parametrize("period", [1, 2.5, 3, 7, 20])
def test_small_collectives_are_never_silence(period: float, reading: float) -> None:
    """Whatever the time between them and between the readings: they are progress, or at least a trickle."""
    worker = connected(2)
    sent = 0
    for second in range(0, 200, int(reading)):
        due = int((second + reading) / period)
        seen = worker.meter.count + worker.meter.trickle
        worker.move([(due - sent) * 8, 0], seconds=reading)
        assert (worker.meter.count + worker.meter.trickle > seen) is (due > sent)
        sent = due
    if period >= 7 and reading <= 2:
        assert worker.meter.trickle == 0


def test_silence_has_seconds_not_readings() -> None:
    worker = connected(1)
    for _ in range(3):
        worker.move([0], seconds=0.5)
    assert worker.move([8]) == 0
    worker.move([0], seconds=3)
    assert worker.move([8]) == 1


def test_a_little_by_rdma_is_no_silence() -> None:
    worker = connected(1)
    for second in range(1, 30):
        worker.move([0], closed=70 * second)
    assert (worker.meter.count, worker.meter.trickle) == (1, 28)  # the first came after a silence
    for _ in range(30):
        worker.move([0], closed=70 * 29)
    assert worker.move([0], closed=70 * 30) == 2


@pytest.mark.parametrize("period", [5, 30, 299])
def test_a_small_collective_after_a_silence_is_progress(period: int) -> None:
    worker = Worker()
    worker.move([20_000, 35])  # as the groups connect
    for _ in range(5):
        before = worker.meter.count
        for _ in range(period - 1):
            worker.move([0, 35])
        assert worker.meter.count == before
        assert worker.move([120, 35]) == before + 1


def test_polls_read_late_stay_polls() -> None:
    """The agent is delayed, and its reading covers many of them; also a reading that covers none."""
    worker = connected(1)
    for seconds in (1, 1, 40, 1, 1, 7, 1):
        worker.move([35 * seconds], seconds=seconds)
        worker.move([0])
    assert worker.meter.count == 0


def test_the_end_of_a_silent_connection_is_no_progress() -> None:
    worker = connected(1)
    for _ in range(10):
        worker.move([0])
    assert worker.move([1]) == 0  # the peer's FIN
    assert worker.meter.trickle == 0
    del worker.payloads[0]
    assert worker.move([]) == 0


def test_of_the_store_only_data_counts() -> None:
    worker = Worker()
    for _ in range(60):
        worker.move([100 * 70], store=True)  # a store-based barrier
        for _ in range(5):
            worker.move([0], store=True)
    assert (worker.meter.count, worker.meter.trickle) == (0, 0)
    assert worker.move([STORE_RATE], store=True) == 1


def test_a_socket_for_each_poll_is_progress_once() -> None:
    worker = connected(1)
    for number in range(1, 60):
        worker.move([0] * number + [70])
    assert worker.meter.count == 0
    for _ in range(5):
        worker.move([0])
    assert worker.move([0] * 60 + [70]) == 1
