"""What counts for the start timeout, and what is shown meanwhile."""

from __future__ import annotations

from torchnet.constants import COLD_START_SECONDS
from torchnet.k8s.run.start_clock import QUEUE, StartClock


def test_a_queue_counts_never_and_images_for_half_an_hour() -> None:
    clock = StartClock()
    assert not clock.count(5.0, "")
    assert clock.count(10 * COLD_START_SECONDS, QUEUE)
    assert clock.count(COLD_START_SECONDS, "images")
    assert clock.count(1.0, "new nodes")
    assert not clock.count(7.0, "images"), "the agents of the other workers wait no longer"
    assert not clock.count(7.0, "new nodes")
    assert clock.count(1.0, QUEUE)
    assert clock.seconds == 19.0
    assert clock.passed == COLD_START_SECONDS + 20.0


def test_progress_becomes_rarer() -> None:
    clock, told = StartClock(), []
    for second in range(1, 1000):
        clock.count(1.0, "images" if second <= 90 else "new nodes")
        if text := clock.progress():
            told.append((second, text))
    assert [second for second, _ in told] == [60, 120, 240, 480, 960]
    assert told[0][1] == "waited 1 min 00 s for images, which counts for no timeout"
    assert "1 min 30 s for images and 30.0 s for new nodes" in told[1][1]


def test_a_run_without_a_queue_waits_for_its_resumption() -> None:
    clock = StartClock("its resumption")
    assert clock.count(60.0, QUEUE)
    assert clock.progress() == "waited 1 min 00 s for its resumption, which counts for no timeout"


def test_a_start_without_waiting_shows_nothing() -> None:
    clock = StartClock()
    for _ in range(1000):
        clock.count(1.0, "")
        assert clock.progress() == ""
