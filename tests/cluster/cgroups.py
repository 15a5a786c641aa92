"""The control groups of the nodes' containers: who is in them ends with the cluster, and they are removed."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from tests.cluster import daemons
from tests.cluster.shell import wait_until

MOUNT = Path("/sys/fs/cgroup")


def folders(name: str) -> list[Path]:
    """Where the group ``name`` is: once in the unified hierarchy, once for each controller in the old ones."""
    roots = [MOUNT, *(path for path in MOUNT.iterdir() if path.is_dir())]
    return [root / name for root in roots if (root / name).is_dir()]


def processes(name: str) -> list[int]:
    """Everything in the group and below it, but for zombies."""
    found: set[int] = set()
    for folder in folders(name):
        for below, _, files in os.walk(folder):
            if "cgroup.procs" in files:
                found.update(int(line) for line in Path(below, "cgroup.procs").read_text().split())
    return sorted(number for number in found if daemons.running(number))


def end(names: list[str]) -> None:
    """Kill what is in these groups, and remove them."""
    while numbers := [number for name in names for number in processes(name)]:
        daemons.end(numbers)
    for name in names:
        wait_until(f"control group {name} to be empty", 10, partial(_removed, name))


def forget(name: str) -> None:
    """Remove a group that holds no other, if it is so."""
    for folder in folders(name):
        try:
            folder.rmdir()
        except OSError:
            pass  # another containerd's


def _removed(name: str) -> bool:
    for folder in folders(name):
        for below, _, _ in os.walk(folder, topdown=False):
            try:
                os.rmdir(below)
            except OSError:
                return False  # a process that has ended counts until it is reaped
    return True
