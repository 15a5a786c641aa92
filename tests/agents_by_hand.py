"""`torchnet agent` by hand on two machines with a cable: from the package, or from the zip alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.namespaces import Space, cable
from torchnet.linux import namespaces

ADDRESSES = ("fd00:7::1", "fd00:7::2")
OTHERS = ("fd00:8::1", "fd00:8::2")  # on eth2


def start_pair(
    folder: Path, *words: object, archive: Path | None = None, hosts_file: str = "hosts-{rank}"
) -> list[subprocess.Popen[str]]:
    """Start a job of two workers, each with an eth1, an eth2 and an /etc/hosts of its own.

    Args:
        words: flags, the script and its arguments.
        archive: the zip to run, with no folder of installed packages at all; None: the package.
        hosts_file: path in ``folder``; one that ends with /etc/hosts is taken for the machine's own.
    """
    far = Space()
    cable("eth1", "eth1", far, addresses=((f"{ADDRESSES[0]}/64", f"{ADDRESSES[1]}/64"),))
    cable("eth2", "eth2", far, addresses=((f"{OTHERS[0]}/64", f"{OTHERS[1]}/64"),))
    path = str(archive or ROOT)
    command = ["-S", path, "agent"] if archive else ["-m", "torchnet", "agent"]
    agents = []
    for rank in (0, 1):
        hosts = folder / hosts_file.format(rank=rank)
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text("127.0.0.1 localhost\n")

        def enter(rank: int = rank, hosts: Path = hosts) -> None:
            if rank:
                namespaces.setns(far.descriptor, namespaces.NEWNET)
            namespaces.unshare(namespaces.NEWNS)
            namespaces.mount(str(hosts), os.path.realpath("/etc/hosts"), flags=namespaces.MS_BIND)

        flags = ["--nnodes", "2", "--node_rank", str(rank), "--name", f"machine-{rank}"]
        flags += ["--start-timeout", "30", "--address-source", "host:eth1", "--rank0", ADDRESSES[0]]
        agents.append(
            subprocess.Popen(
                [sys.executable, *command, *flags, *map(str, words)],
                env={**os.environ, "PYTHONPATH": path, "TORCHNET_TOKEN": "of this test"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,  # not where the package is: `python -c` looks there first
                preexec_fn=enter,  # noqa: PLW1509  # one thread
            )
        )
    return agents
