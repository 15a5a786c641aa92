"""The samples of --measure: what a counter did, however late it is read and however long it runs."""

from __future__ import annotations

import base64
import itertools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.agents import rails, spec, table
from torchnet.agent import training_phase
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.rate_sampler import BLOCK, SAMPLE, UNIT, RateSampler


class Clock:
    """A counter and a clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.sent = 100.0, 7 * UNIT
        monkeypatch.setattr("torchnet.agent.rate_sampler.time.monotonic", lambda: self.now)
        monkeypatch.setattr(RateSampler, "_sent", lambda _: self.sent // UNIT)
        self.loop = EventLoop()
        self.pace = RateSampler(self.loop, {"net1"})

    def pass_by(self, samples: float, units: float) -> None:
        self.now += samples * SAMPLE
        self.sent += int(units * UNIT)
        self.pace._sample()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock(monkeypatch)
    yield made
    made.loop.close()


def blocks(told: dict[str, Any]) -> dict[int, list[int]]:
    return {
        int(number): [int(word) for word in zlib.decompress(base64.b64decode(text)).split()]
        for number, text in told["blocks"].items()
    }


def test_each_sample_has_its_bytes_and_late_ones_share_them(clock: Clock) -> None:
    for samples, units in ((1.01, 5), (1, 0), (4, 10), (0.2, 3), (1, 0.5), (1, 0.5)):
        clock.pass_by(samples, units)
    told = clock.pace.close()
    # Part of a sample's time is no sample: its bytes count in the next.
    assert blocks(told) == {0: [5, 0, 2, 3, 2, 3, 3, 1]}
    assert (told["sample_s"], told["unit_bytes"], told["block_samples"]) == (SAMPLE, UNIT, BLOCK)


def test_a_counter_that_begins_anew_is_no_traffic(clock: Clock) -> None:
    clock.pass_by(1.01, 5)
    clock.pass_by(1, -12)
    clock.pass_by(1, 4)
    assert blocks(clock.pace.close()) == {0: [5, 0, 4]}


def test_of_a_long_run_blocks_from_all_of_it_are_kept(clock: Clock) -> None:
    for number in range(13):
        for _ in range(BLOCK):
            clock.pass_by(1.0000001, number)
    kept = blocks(clock.pace.close())
    assert len(kept) <= 4
    assert all(set(block) == {number} for number, block in kept.items())
    numbers = sorted(kept)
    assert len({b - a for a, b in itertools.pairwise(numbers)}) == 1
    assert numbers[0] == 0
    assert numbers[-1] >= 8


def test_it_reads_the_kernel_s_counter() -> None:
    loop = EventLoop()
    made = RateSampler(loop, {"lo"})
    before = made._sent()
    import socket

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        other = server.accept()[0]
        one.sendall(bytes(1 << 16))
        left = 1 << 16
        while left:
            left -= len(other.recv(left))
        other.close()
    assert (made._sent() - before) * UNIT >= 1 << 16
    made.close()
    loop.close()


def test_all_rails_are_read_though_the_kernel_gives_a_page_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine with many interfaces, the rails are the last ones."""
    planted = tmp_path / "dev"
    rows = [f"{f'veth{n}':>6}: " + " ".join(["1000000"] * 16) for n in range(100)]
    rows += [f"{f'net{n}':>6}: " + " ".join([f"{n * 512}"] * 16) for n in (1, 2, 3)]
    planted.write_text("\n".join(["Inter-| Receive", " face |bytes", *rows, ""]))
    assert planted.stat().st_size > 3 * 4096
    opened, read = os.open, os.pread
    monkeypatch.setattr("torchnet.agent.rate_sampler.os.open", lambda _, flags: opened(planted, flags))
    monkeypatch.setattr(
        "torchnet.agent.rate_sampler.os.pread", lambda file, most, at: read(file, min(most, 4096), at)
    )
    loop = EventLoop()
    made = RateSampler(loop, {"net1", "net3", "net9"})
    assert made._sent() == (512 + 3 * 512) // UNIT
    made.close()
    loop.close()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> training_phase.TrainingPhase:
    """One that samples, and has neither processes nor an account."""
    for name in ("TrafficAccount", "ProcessEnvironment", "LinkMonitor"):
        monkeypatch.setattr(training_phase, name, MagicMock())
    made = training_phase.TrainingPhase(
        MagicMock(), spec(measure=True), MagicMock(), ended=print, rail_lost=print, notice=print
    )
    made.processes = MagicMock()
    return made


def test_the_sampling_ends_with_the_worker(worker: training_phase.TrainingPhase) -> None:
    before = len(os.listdir("/proc/self/fd"))
    worker.start(table(), rails(), 29501, 0)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    worker.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_counters_that_cannot_be_read_cost_the_samples_alone(
    worker: training_phase.TrainingPhase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> RateSampler:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(training_phase, "RateSampler", refused)
    worker.start(table(), rails(), 29501, 0)
    worker.processes.start.assert_called_once()  # type: ignore[attr-defined]
    worker.close()
