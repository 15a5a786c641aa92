"""Whether the kernel killed for memory in this process's control group: what a container's limit does."""

from __future__ import annotations

ROOT = "/sys/fs/cgroup"


def kills(root: str = ROOT, own: str = "/proc/self/cgroup") -> int | None:
    """How many processes of the group were killed so far (cgroups(7), memory.events); None where that is not told."""
    for path in _files(root, own):
        try:
            with open(path) as file:
                fields = dict(line.split() for line in file if len(line.split()) == 2)
            return int(fields["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return None


def limit(root: str = ROOT, own: str = "/proc/self/cgroup") -> int | None:
    """The group's limit in bytes, where it has one."""
    for path in _files(root, own, ("memory.max", "memory.limit_in_bytes")):
        try:
            with open(path) as file:
                found = int(file.read())
        except (OSError, ValueError):
            continue
        return found if found < 1 << 60 else None
    return None


def _files(
    root: str, own: str, names: tuple[str, str] = ("memory.events", "memory.oom_control")
) -> list[str]:
    """Of the second version of control groups, then of the first."""
    found = []
    try:
        with open(own) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        lines = []
    for parts in lines:
        if len(parts) == 3 and parts[:2] == ["0", ""]:
            found.append(f"{root}{parts[2].rstrip('/')}/{names[0]}")
        elif len(parts) == 3 and "memory" in parts[1].split(","):
            found.append(f"{root}/memory{parts[2].rstrip('/')}/{names[1]}")
    # In a container the group may be the root of what is mounted, whatever its path outside is.
    return [*found, f"{root}/{names[0]}", f"{root}/memory/{names[1]}"]
