"""The cores' use and the quota, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchnet.bench.worker.cpu import Usage


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


def test_the_quota_of_the_own_cgroup(tmp_path: Path) -> None:
    usage = _world(tmp_path, "cpu 1 0 0 1 0 0 0 0\n", "usage_usec 9\nthrottled_usec 1000000\n")
    usage.start()
    (tmp_path / "cgroups" / "pod" / "one" / "cpu.stat").write_text("usage_usec 9\nthrottled_usec 900000000\n")
    busy, throttled = usage.stop()
    assert busy is None  # no tick has passed
    assert throttled == 1.0  # never more than the whole time


def test_in_a_container_the_own_cgroup_is_the_topmost(tmp_path: Path) -> None:
    (tmp_path / "cgroups").mkdir()
    (tmp_path / "cgroups" / "cpu.stat").write_text("throttled_usec 5\n")
    usage = _world(tmp_path, "cpu 1 0 0 1 0 0 0 0\n", None, own="/not/to/be/seen")
    usage.start()
    assert usage.stop()[1] == 0.0


@pytest.mark.parametrize("stat", ["", "cpu x y\n", "cpu\n"])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, stat: str) -> None:
    usage = _world(tmp_path, stat, "throttled_usec many\n")
    assert usage.stop() == (None, None)
    usage.start()
    assert usage.stop() == (None, None)
