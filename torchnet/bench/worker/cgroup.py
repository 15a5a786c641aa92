"""This process' control group, of version 2, and those around it, whose limits hold, too.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def groups(root: Path = ROOT, own: Path = OWN) -> list[Path]:
    """Their folders, innermost first, whether they are there or not; a container sees its own as the topmost."""
    try:
        path = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        path = "/"
    inner = root / path.strip("/")
    return [folder for folder in (inner, *inner.parents) if folder == root or root in folder.parents]
