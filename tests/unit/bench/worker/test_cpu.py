"""The cores' and threads' use and the quota, from files as the kernel writes them, and from the kernel itself."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from torchnet.bench.worker.cpu import Threads, Usage


def _world(folder: Path, stat: str, cpu_stat: str | None, own: str = "/pod/one") -> Usage:
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "stat").write_text(stat)
    (folder / "proc" / "self" / "cgroup").write_text(f"0::{own}\n")
    if cpu_stat is not None:
        (folder / "cgroups" / own.lstrip("/")).mkdir(parents=True)
        (folder / "cgroups" / own.lstrip("/") / "cpu.stat").write_text(cpu_stat)
    return Usage(folder / "proc", folder / "cgroups")


def test_busy_is_what_is_neither_idle_nor_waiting_for_a_disk(tmp_path: Path) -> None:
    usage = _world(tmp_path, "cpu 100 0 100 1000 50 0 0 0 90 0\ncpu0 1 1 1\n", None)
    usage.start()
    (tmp_path / "proc" / "stat").write_text("cpu 120 0 110 1050 60 5 5 0 99 0\ncpu0 1 1 1\n")
    busy, throttled = usage.stop()
    assert busy == pytest.approx(40 / 100)
    assert throttled is None


def _quota(periods: int, up: int) -> str:
    """What throttled_usec says is a sum over the cores: here ever so much more than the time that has passed."""
    return f"usage_usec 9\nnr_periods {periods}\nnr_throttled {up}\nthrottled_usec {up * 900_000_000}\n"


def test_a_quota_is_the_share_of_its_periods_in_which_it_was_used_up(tmp_path: Path) -> None:
    usage = _world(tmp_path, "cpu 1 0 0 1 0 0 0 0\n", _quota(100, 30))
    usage.start()
    (tmp_path / "cgroups" / "pod" / "one" / "cpu.stat").write_text(_quota(140, 40))
    busy, throttled = usage.stop()
    assert busy is None  # no tick has passed
    assert throttled == 0.25


def test_the_quota_of_the_whole_pod_holds_its_containers_too(tmp_path: Path) -> None:
    usage = _world(tmp_path, "cpu 1 0 0 1 0 0 0 0\n", _quota(0, 0))
    pod = tmp_path / "cgroups" / "pod" / "cpu.stat"
    pod.write_text(_quota(10, 2))
    usage = Usage(tmp_path / "proc", tmp_path / "cgroups")
    usage.start()
    pod.write_text(_quota(20, 8))
    assert usage.stop()[1] == 0.6


def test_in_a_container_the_own_cgroup_is_the_topmost(tmp_path: Path) -> None:
    (tmp_path / "cgroups").mkdir()
    (tmp_path / "cgroups" / "cpu.stat").write_text(_quota(5, 5))
    usage = _world(tmp_path, "cpu 1 0 0 1 0 0 0 0\n", None, own="/not/to/be/seen")
    usage.start()
    assert usage.stop()[1] == 0.0


@pytest.mark.parametrize("stat", ["", "cpu x y\n", "cpu\n"])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, stat: str) -> None:
    usage = _world(tmp_path, stat, "nr_periods many\nnr_throttled 1\n")
    assert usage.stop() == (None, None)
    usage.start()
    assert usage.stop() == (None, None)


def test_the_busiest_thread_counts_and_not_all_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ticks(thread: int, user: int, system: int) -> None:
        (tmp_path / f"{thread}").mkdir(exist_ok=True)
        before = "S 1 1 1 0 -1 4194560 160 0 0 0"
        (tmp_path / f"{thread}" / "stat").write_text(
            f"{thread} (a ) b) {before} {user} {system} 7000 7000 20 0\n"
        )

    now = 100.0
    monkeypatch.setattr("torchnet.bench.worker.cpu.time.monotonic", lambda: now)
    second = os.sysconf("SC_CLK_TCK")
    ticks(1, 5 * second, second)
    ticks(2, 50 * second, 0)
    threads = Threads(tmp_path)
    assert threads.stop() is None
    threads.start()
    ticks(1, 6 * second, 3 * second)
    ticks(2, 51 * second, 0)
    ticks(3, 2 * second, 0)  # it has begun in between
    now += 5
    assert threads.stop() == pytest.approx(3 / 5)
    threads.start()
    now += 0.05
    assert threads.stop() is None, "a tick or two say little"


def test_a_thread_that_does_nothing_else_uses_its_core(tmp_path: Path) -> None:
    """Whoever else runs on this machine may take a part of it."""
    spun, over = threading.Event(), threading.Event()

    def spin() -> None:
        while time.thread_time() < 0.15:
            pass
        spun.set()
        over.wait()

    threads = Threads()
    threads.start()
    spinning = threading.Thread(target=spin)
    spinning.start()
    spun.wait()
    share = threads.stop()
    over.set()
    spinning.join()
    assert share is not None
    assert 0 < share <= 1
    assert Threads(tmp_path / "nothing").stop() is None
