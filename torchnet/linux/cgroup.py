"""Memory limits, usage and OOM kills of this process's cgroup and its ancestors, for cgroup v1 and v2.

Sources:
    The kernel's Documentation/admin-guide/cgroup-v2.rst and, for v1, cgroup-v1/memory.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_EVENTS = (("", "memory.events"), ("memory", "memory.oom_control"))  # v2, v1
_UNLIMITED = 1 << 60  # without a limit v1 reports the largest whole number of pages
# v2, v1: limit, usage, and the inactive page cache in it (memory.stat, descendants included).
_FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class MemoryLimit:
    """A cgroup's memory limit, and its usage without inactive page cache, in bytes."""

    limit: int
    used: int


def groups(root: Path = ROOT, own: Path = OWN, controller: str = "") -> list[Path]:
    """Return the cgroup folders of this process, innermost first, whether or not they exist.

    A container sees its own cgroup as the root.

    Args:
        controller: a v1 controller; "" for v2.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
        path = next(path for _, controllers, path in lines if controller in controllers.split(","))
    except (OSError, ValueError, StopIteration):
        path = "/"
    top = root / controller
    inner = top / path.strip("/")
    return [folder for folder in (inner, *inner.parents) if folder == top or top in folder.parents]


def memory(root: Path = ROOT, own: Path = OWN) -> list[MemoryLimit]:
    """Return one entry for each cgroup that limits memory.

    Usage excludes inactive page cache, which the kernel reclaims before it kills a process; Kubernetes does
    the same (cAdvisor's working set).
    """
    found = []
    for controller, limit, usage, inactive in _FILES:
        for folder in groups(root, own, controller):
            most = _number(folder / limit)
            if most is not None and most < _UNLIMITED:
                used = (_number(folder / usage) or 0) - (_field(folder / "memory.stat", inactive) or 0)
                found.append(MemoryLimit(most, max(0, used)))
    return found


def oom_kills(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Return the number of OOM kills in the innermost cgroup that counts them, or None."""
    for controller, events in _EVENTS:
        for folder in groups(root, own, controller):
            count = _field(folder / events, "oom_kill")
            if count is not None:
                return count
    return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # missing, or "max"
        return None


def _field(file: Path, name: str) -> int | None:
    """Return the number after ``name`` in a file of ``NAME NUMBER`` lines."""
    try:
        fields = dict(line.split(" ", 1) for line in file.read_text().splitlines())
        return int(fields[name])
    except (OSError, ValueError, KeyError):
        return None
