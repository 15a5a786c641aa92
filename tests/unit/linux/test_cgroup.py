"""Memory limits and OOM kills, of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

from torchnet.linux import cgroup


def test_oom_kills_and_the_limit_are_the_groups_own(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/kubepods/pod1\n")
    assert cgroup.oom_kills(tmp_path, own) is None
    group = tmp_path / "kubepods" / "pod1"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n")
    (group.parent / "memory.events").write_text("oom 9\noom_kill 9\n")  # those of other pods, too
    (group / "memory.max").write_text("536870912\n")
    assert cgroup.oom_kills(tmp_path, own) == 2
    assert [one.limit for one in cgroup.memory(tmp_path, own)] == [512 << 20]
    (group / "memory.max").write_text("max\n")
    assert cgroup.memory(tmp_path, own) == []


def test_version_1_counts_oom_kills_too(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("4:cpu,memory:/pod2\n0::/\n")
    group = tmp_path / "memory" / "pod2"
    group.mkdir(parents=True)
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert cgroup.oom_kills(tmp_path, own) == 3
    assert cgroup.oom_kills(tmp_path / "none", tmp_path / "none") is None


def test_a_container_reads_its_group_at_the_root_of_the_mount(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/kubepods/out/of/sight\n")
    (tmp_path / "memory.events").write_text("oom_kill 1\n")
    assert cgroup.oom_kills(tmp_path, own) == 1
