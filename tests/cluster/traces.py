"""What a cluster could leave on the machine beside processes, namespaces and links: those are in tests/leaks.py."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import cgroups, nodes
from tests.cluster.places import CGROUP, DISKS, RUN


def traces() -> set[str]:
    """Mounts, routes, settings, control groups and folders, a line for each."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = {f"mount: {line.split()[4]}" for line in mounts}
    found |= routes()
    for name in nodes.SETTINGS:
        found.add(f"setting: {name} = {Path('/proc/sys', name).read_text().strip()}")
    found |= {f"control group: {path}" for path in cgroups.folders(CGROUP)}
    folders = [RUN, DISKS, Path("/run/netns"), *(Path("/", path) for path in nodes.OWN)]
    return found | {f"folder: {path}" for path in folders if path.exists()}


def routes() -> set[str]:
    """The machine's own routes, of both families and all tables."""
    found = set()
    for family in ("-4", "-6"):
        command = ["ip", family, "route", "show", "table", "all"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        found |= {f"route: {line.strip()}" for line in listed.stdout.splitlines()}
    return found


@contextmanager
def untouched() -> Iterator[None]:
    """AssertionError if the block leaves a trace, or takes something away."""
    before = traces()
    yield
    after = traces()
    lines = [f"left behind: {line}" for line in sorted(after - before)]
    lines += [f"taken away: {line}" for line in sorted(before - after)]
    if lines:
        raise AssertionError("the cluster left traces:\n  " + "\n  ".join(lines))
