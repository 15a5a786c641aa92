"""Whether the lab can run on this machine, and if not, why and what would help."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
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
        found += _boot()
    if not Path("/dev/net/tun").exists():
        found.append("there is no /dev/net/tun")
    return found


def _boot() -> list[str]:
    """Boot a kernel up to its first process, whose end it takes for a panic: it needs ptrace, and memory to map."""
    words = (v.KERNEL, "mem=64M", "root=/dev/root", "rootfstype=hostfs", "ro", "init=/bin/true", "con=null")
    try:
        with tempfile.TemporaryDirectory() as folder:  # else it leaves one in the home folder
            done = subprocess.run(
                [*words, "con0=fd:0,fd:1", f"uml_dir={folder}", "umid=try"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=30,
                check=False,
                cwd=folder,
                preexec_fn=_without_core,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{v.KERNEL} does not run: {error}"]
    said = done.stdout + done.stderr
    return [] if "Attempted to kill init" in said else [f"{v.KERNEL} does not run: {said.strip()[-300:]}"]


def _without_core() -> None:
    """A panic ends by abort()."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
