"""Sizes and the memory that ranks will have: of this machine, of its control groups, of a pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.bench_asked import GIB, PODS, a_plan, arguments
from torchnet.bench import job
from torchnet.bench.worker import worker_config
from torchnet.config.validation_errors import SpecError


def test_a_default_size_that_does_not_fit_is_lowered_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda: (2 * GIB, "on this machine"))
    wish = a_plan()
    # 1 GiB for each of two ranks, less what torch takes, holds 4 copies of 64M; the next size would be 256M.
    assert max(arguments(wish).sizes) == 64 << 20
    (line,) = wish.notices
    assert all(figure in line for figure in ("64M", "256M", "1.0 GiB", "2.0 GiB", "512 MiB"))


def test_a_size_that_was_asked_for_and_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda: (3 * GIB, "on this machine"))
    with pytest.raises(SpecError, match="--max-bytes: 1G needs 4.0 GiB in each rank") as caught:
        a_plan(max_bytes="1G")
    assert "256M would fit" in str(caught.value)


def test_a_smallest_size_alone_leaves_the_largest_to_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda: (3 * GIB // 2, "on this machine"))
    wish = a_plan(min_bytes="8")
    assert (min(arguments(wish).sizes), max(arguments(wish).sizes)) == (8, 32 << 20)
    assert all(figure in wish.notices[0] for figure in ("32M", "128M", "512 MiB"))
    # Fours from 8 never come to 256M, so that it need not fit.
    assert max(arguments(a_plan(min_bytes="8", max_bytes="100M")).sizes) == 32 << 20
    with pytest.raises(SpecError, match="--min-bytes: 1G needs 4.0 GiB in each rank"):
        a_plan(min_bytes="1G")


def test_on_kubernetes_the_pods_memory_counts() -> None:
    with pytest.raises(SpecError, match="2Gi.* 1.5 GiB .*; 384M would fit; .*--memory"):
        a_plan(flags=PODS, max_bytes="1G")
    found = arguments(a_plan(flags={**PODS, "kubernetes.memory": "1Gi:8Gi"}, max_bytes="1G"))
    assert found.memory == 15 * GIB // 2


def test_with_gpus_the_machines_memory_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_memory", lambda: (3 * GIB, "on this machine"))
    unknown = worker_config.WorkerConfig((), ()).memory
    flags = {**PODS, "kubernetes.gpus": "8"}
    wishes: tuple[dict[str, Any], ...] = ({}, {"backend": "nccl"})
    for backend in wishes:
        assert arguments(a_plan(flags=flags, max_bytes="16G", **backend)).memory == unknown
        assert arguments(a_plan(gpus="0,1", max_bytes="16G", **backend)).memory == unknown


def test_gloos_tensors_are_in_the_machines_memory_whatever_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "available_memory", lambda: (3 * GIB, "on this machine"))
    with pytest.raises(SpecError, match="--max-bytes: 1G needs 4.0 GiB in each rank"):
        a_plan(gpus="0,1", max_bytes="1G", backend="gloo")
    assert arguments(a_plan(gpus="0,1", backend="gloo")).memory == GIB
    # A pod with GPUs has 16 GiB for each, unless told: for a rank that is less what torch takes.
    found = arguments(a_plan(flags={**PODS, "kubernetes.gpus": "8"}, backend="gloo"))
    assert found.memory == 16 * GIB - job.OWN


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A group of 900 MB in one of 800 MB, on a machine that has 1000 MB left."""
    (tmp_path / "meminfo").write_text("MemTotal: 2000000 kB\nMemAvailable: 976563 kB\n")
    (tmp_path / "own").write_text("4:memory:/pod/container\n0::/pod/container\n")
    inner = tmp_path / "cgroup" / "pod" / "container"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("900000000\n")
    (inner / "memory.current").write_text("250000000\n")
    (inner / "memory.stat").write_text("anon 150000000\nfile 100000000\ninactive_file 50000000\n")
    (inner.parent / "memory.max").write_text("800000000\n")
    (inner.parent / "memory.current").write_text("600000000\n")
    (inner.parent / "memory.stat").write_text("anon 1\ninactive_file 0\nactive_file 500000000\n")
    return tmp_path


def free(place: Path) -> int | None:
    found = job.available_memory(place / "meminfo", place / "cgroup", place / "own")
    return found[0] if found else None


def test_what_a_group_or_one_around_it_has_left_is_the_most_there_is(groups: Path) -> None:
    around = groups / "cgroup" / "pod"
    assert free(groups) == 200_000_000
    # As much as files that nobody used lately take comes back.
    (around / "memory.stat").write_text("inactive_file 300000000\n")
    assert free(groups) == 500_000_000
    (around / "memory.max").write_text("max\n")
    assert free(groups) == 700_000_000
    (around / "container" / "memory.max").write_text("1\n")
    assert free(groups) == 0
    (around / "container" / "memory.max").write_text("5000000000\n")
    assert free(groups) == 976_563 << 10
    (groups / "meminfo").write_text("MemTotal: 2000000 kB\n")
    assert free(groups) is None


def test_a_notice_says_whose_memory_it_is(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (groups / "meminfo").write_text("MemAvailable: 2621440 kB\n")
    whole = job.available_memory
    monkeypatch.setattr(
        job, "available_memory", lambda: whole(groups / "meminfo", groups / "cgroup", groups / "own")
    )
    for most, words in (("2147483648", "2.0 GiB of free memory in this control group"),
                        ("max", "2.5 GiB of free memory on this machine")):  # fmt: skip
        for folder in (groups / "cgroup" / "pod", groups / "cgroup" / "pod" / "container"):
            (folder / "memory.max").write_text(most)
            (folder / "memory.current").write_text("0")
        assert words in a_plan().notices[0]


def test_a_container_sees_its_own_group_as_the_topmost(groups: Path) -> None:
    (groups / "own").write_text("0::/kubepods/out/of/sight\n")
    (groups / "cgroup" / "memory.max").write_text("300000000\n")
    (groups / "cgroup" / "memory.current").write_text("100000000\n")
    assert free(groups) == 200_000_000


def test_groups_of_the_first_version_count_too(groups: Path) -> None:
    inner = groups / "cgroup" / "memory" / "pod" / "container"
    inner.mkdir(parents=True)
    (inner / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (inner / "memory.usage_in_bytes").write_text("250000000\n")
    assert free(groups) == 200_000_000
    (inner.parent / "memory.limit_in_bytes").write_text("400000000\n")
    (inner.parent / "memory.usage_in_bytes").write_text("350000000\n")
    (inner.parent / "memory.stat").write_text("inactive_file 7\ntotal_inactive_file 40000000\n")
    assert free(groups) == 90_000_000
