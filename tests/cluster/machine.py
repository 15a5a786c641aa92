"""Whether the cluster can run on this machine, and if not, why and what would help."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cluster import golang, recipes
from tests.cluster.shell import ClusterFailure, run
from tests.cluster.store import BUSYBOX
from tests.cluster.versions import DEBIAN_PROGRAMS

LINKS = {
    "bridge": "ip link add x type bridge",
    "veth": "ip link add x type veth peer name y",
    "macvlan": "ip link add x type veth peer name y; ip link add link x name z type macvlan",
}


def obstacles() -> list[str]:
    """Everything that is in the way, all at once; empty where the cluster can run."""
    if os.geteuid():
        return ["only root can make the nodes' networks and mounts"]
    found = []
    packages = sorted({package for path, package in DEBIAN_PROGRAMS.items() if not Path(path).exists()})
    if BUSYBOX.exists() and not _static(BUSYBOX):
        packages.append("busybox-static")  # the other one would find no libraries in an image
    if packages and not Path("/etc/debian_version").exists():
        found.append(f"its parts are Debian's packages, and this is no Debian: {' '.join(packages)}")
    elif packages:
        found.append(f"missing packages: apt-get install --no-install-recommends {' '.join(packages)}")
    if not recipes.built():
        try:
            golang.go()
        except ClusterFailure as failure:
            found.append(str(failure))
    if not packages:
        found += _links()
    return found


def _static(program: Path) -> bool:
    """`ldd` fails for a program that needs no libraries."""
    try:
        run("ldd", program)
    except ClusterFailure:
        return True
    return False


def _links() -> list[str]:
    """Whether the kernel has the links, tried in a network namespace that is gone at once."""
    found = []
    for kind, line in LINKS.items():
        try:
            run("unshare", "--net", "sh", "-ec", line)
        except ClusterFailure as failure:
            found.append(f"this kernel has no {kind}: {str(failure).splitlines()[-1]}")
    return found
