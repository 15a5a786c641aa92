"""Whether the lab can run on this machine, and if not, why and what would help."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cluster import machine
from tests.lab import versions as v

_MODULES = ("ipvlan", "macvlan", "overlay", "veth", "bridge")


def obstacles() -> list[str]:
    """Everything that is in the way, all at once; empty where the lab can run."""
    found = machine.obstacles()
    if os.geteuid():
        return found
    packages = sorted({package for path, package in v.DEBIAN_PROGRAMS.items() if not Path(path).exists()})
    if packages:
        found.append(f"missing packages: apt-get install --no-install-recommends {' '.join(packages)}")
    else:
        there = {path.stem for path in Path(v.MODULES).rglob("*.ko")}
        found += [f"{v.MODULES} has no {name}" for name in _MODULES if name not in there]
    if not Path("/dev/net/tun").exists():
        found.append("there is no /dev/net/tun")
    return found
