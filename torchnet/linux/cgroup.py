"""This process's control groups and the groups around them, of both versions: memory limits, usage and OOM kills.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and, for version 1, cgroup-v1/memory.rst beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_EVENTS = (("", "memory.events"), ("memory", "memory.oom_control"))  # of version 2 and of version 1
_UNLIMITED = 1 << 60  # version 1 writes the largest whole number of pages where there is no limit
# Of version 2 and of version 1: the limit, what is charged, and what of that are pages of files that nobody used
# lately; of the groups below, too.
_FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes: a group's limit, and what of it is taken and does not come back by itself."""

    limit: int
    used: int


def groups(root: Path = ROOT, own: Path = OWN, controller: str = "") -> list[Path]:
    """Their folders, innermost first, whether they are there or not; a container sees its own as the topmost.

    ``controller``: of version 1; those of version 2 without one.
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
    """Of each group that has a limit.

    What is charged to a group contains the files that it has read. The kernel takes the inactive ones of these back
    before it kills, so that they count as free, as they do for Kubernetes (cAdvisor's working set).
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
    """How many processes the kernel has killed for memory in the innermost group that counts them, if any does."""
    for controller, events in _EVENTS:
        for folder in groups(root, own, controller):
            count = _field(folder / events, "oom_kill")
            if count is not None:
                return count
    return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _field(file: Path, name: str) -> int | None:
    """The number after ``name`` in a file of such lines."""
    try:
        fields = dict(line.split(" ", 1) for line in file.read_text().splitlines())
        return int(fields[name])
    except (OSError, ValueError, KeyError):
        return None
