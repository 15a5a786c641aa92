"""What a test leaves behind: processes, namespaces, links and control groups, before against after.

Everything is read where `ps`, `lsns`, `ip link` and `ip netns` read it, too; their listings are not compared
as they are, since the rest of the machine is in them.  A process belongs to the tests if it descends from
them, shares their session, or carries their mark in its environment (so that a daemon is found as well, which
does neither of the first two).
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from tests.cluster.places import CGROUP, CONTROL_PLANE, FABRIC, NODES

# Not TORCHNET_…: torchnet warns of such a variable when it is not one of its own.
MARK = "TESTS_OF_TORCHNET"
# The names of a test cluster's network namespaces, whatever the cluster is called.
CLUSTER_HOST = re.compile(rf"-(?:{'|'.join((CONTROL_PLANE, FABRIC, *NODES, 'router'))})$")
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


@dataclass(frozen=True)
class Snapshot:
    """What there is now; each item is a line that a person can act on."""

    processes: frozenset[str]
    namespaces: frozenset[str]
    named: frozenset[str]
    links: frozenset[str]
    cgroups: frozenset[str]

    def leaked_since(self, before: Snapshot) -> list[str]:
        """Lines that differ from ``before``: what came and stayed, and what the test took away."""
        lines = []
        for field in fields(self):
            old, new = getattr(before, field.name), getattr(self, field.name)
            lines += [f"left behind: {item}" for item in sorted(new - old)]
            # A process or a namespace of an earlier test may end late; a link or a name must not vanish.
            if field.name not in ("processes", "namespaces"):
                lines += [f"taken away: {item}" for item in sorted(old - new)]
        return lines


def snapshot(*, clusters: bool = False) -> Snapshot:
    """The present state, of this process's own view of the machine: without test clusters, unless ``clusters``."""
    ours = _our_processes()
    return Snapshot(
        processes=frozenset(f"process {pid}: {_command(pid)}" for pid in ours),
        namespaces=frozenset(_namespaces(ours)),
        named=frozenset(name for name in _named_namespaces() if clusters or not CLUSTER_HOST.search(name)),
        links=frozenset(f"link {index}: {name}" for index, name in socket.if_nameindex()),
        cgroups=frozenset(name for name in _cgroups() if clusters or f"/{CGROUP}" not in name),
    )


@contextmanager
def watched(grace: float = 5.0, *, clusters: bool = False) -> Iterator[None]:
    """AssertionError if the block leaves anything that does not end by itself within ``grace`` seconds.

    Another lane may bring a test cluster up or down meanwhile: that counts only with ``clusters``.
    """
    before = snapshot(clusters=clusters)
    yield
    deadline = time.monotonic() + grace
    while lines := snapshot(clusters=clusters).leaked_since(before):
        if time.monotonic() > deadline:
            raise AssertionError("the test leaked:\n  " + "\n  ".join(lines))
        time.sleep(0.05)


def _our_processes() -> list[int]:
    parents, found = {}, set()
    mark = f"{MARK}={os.environ[MARK]}".encode() if MARK in os.environ else None
    # 0 where the session's leader is outside of the own process namespace: then it says nothing, for the
    # kernel's threads, which come and go, have it as well.
    session = os.getsid(0) or None
    for pid in _pids():
        try:
            # The name, in parentheses, may hold anything; after it come state, parent, group, session.
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if stat[0] == "Z":
            continue  # ended; only its parent has not asked for the code yet
        parents[pid] = int(stat[1])
        if int(stat[3]) == session or (mark and mark in _environment(pid)):
            found.add(pid)
    for pid in parents:
        above, seen = pid, []
        while above in parents and above != os.getpid():
            seen.append(above)
            above = parents[above]
        if above == os.getpid():
            found.update(seen)
    return sorted(found - _ancestors(parents))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _ancestors(parents: dict[int, int]) -> set[int]:
    chain, pid = {os.getpid()}, os.getpid()
    while (pid := parents.get(pid, 0)) > 1:
        chain.add(pid)
    return chain


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return " ".join(words).strip()[:160] or Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def _namespaces(pids: list[int]) -> Iterator[str]:
    """Namespaces other than this process's own that our processes live in or hold open by a descriptor."""
    own = {_link(f"/proc/self/ns/{kind}") for kind in KINDS}
    for pid in [os.getpid(), *pids]:
        paths = [f"/proc/{pid}/ns/{kind}" for kind in KINDS]
        try:
            paths += [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            pass
        for path in paths:
            target = _link(path)
            if target and target.partition(":[")[0] in KINDS and target not in own:
                yield f"namespace {target}"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _named_namespaces() -> Iterator[str]:
    """`ip netns` keeps its names in /run/netns; any other name of a namespace is a mount of nsfs, too."""
    folder = Path("/run/netns")
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        yield f"ip netns: {name}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("nsfs "):
            yield f"named namespace: {before.split()[4]}"


def _cgroups() -> Iterator[str]:
    """Groups at and below our own, in the unified hierarchy, wherever that is mounted."""
    mounts = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    root = next((mount for mount in mounts if (mount / "cgroup.procs").exists()), None)
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if root and line.startswith("0::"):
            for folder, _, _ in os.walk(root / line[len("0::/") :]):
                yield f"cgroup {folder}"
