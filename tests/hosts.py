"""Two hosts without Kubernetes: network namespaces with names, hosts files and interfaces of their own.

host-a (this namespace)                          host-b
eth0  10.1.0.1  ── the frontend, default route ── eth0  10.1.0.2
eth1  10.7.0.1  ── the backend ────────────────── eth1  10.7.0.2
docker0 172.17.0.1 on each, with nothing behind it
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.namespaces import Space, cable, ip
from torchnet.linux import namespaces

FRONTEND, BACKEND = ("10.1.0.1", "10.1.0.2"), ("10.7.0.1", "10.7.0.2")
NAMES = ("host-a", "host-b")
LAUNCHERS = ("SLURM_", "PET_", "NCCL_", "GLOO_", "TORCHELASTIC_", "TORCHNET_")  # their variables


class Hosts:
    """Two hosts; in an isolated test. ``backend``: whether they have a network besides the frontend, of ``rails``."""

    def __init__(self, folder: Path, *, backend: bool = True, rails: int = 1) -> None:
        self.folder = folder
        self._far = Space()
        cable("eth0", "eth0", self._far, addresses=((f"{FRONTEND[0]}/24", f"{FRONTEND[1]}/24"),))
        for rail in range(rails if backend else 0):
            own, far = (address.replace("10.7.", f"10.{7 + rail}.") for address in BACKEND)
            cable(f"eth{rail + 1}", f"eth{rail + 1}", self._far, addresses=((f"{own}/24", f"{far}/24"),))
        for number in (0, 1):
            self.within(number, f"ip route add default via {FRONTEND[1 - number]}")
            self.within(number, "ip link add docker0 type bridge")
            self.within(number, "ip address add 172.17.0.1/16 dev docker0")
            self.within(number, "ip link set docker0 up")

    def within(self, number: int, command: str) -> None:
        """Run ``ip`` or another tool on a host."""
        tool, _, words = command.partition(" ")
        if number == 0:
            ip(words, tool=tool)
            return
        with self._far:
            ip(words, tool=tool)

    def start(
        self, number: int, command: Sequence[str], *, name: str = "", hosts: str = "", **variables: str
    ) -> subprocess.Popen[str]:
        """Start a command on a host; ``hosts`` are further lines of its hosts file."""
        file = self.folder / f"hosts-{number}"
        own = name or NAMES[number]
        # As Debian's installer writes it: the host's own name is not the address of any interface.
        file.write_text(f"127.0.0.1 localhost\n127.0.1.1 {own}\n{hosts}")
        names = self.folder / "resolv.conf"
        names.write_text("nameserver 127.0.0.1\n")  # refused at once; the machine's own would never answer

        def enter() -> None:
            if number:
                namespaces.setns(self._far.descriptor, namespaces.NEWNET)
            namespaces.unshare(namespaces.NEWNS | namespaces.NEWUTS)
            socket.sethostname(own)
            namespaces.mount(str(file), os.path.realpath("/etc/hosts"), flags=namespaces.MS_BIND)
            namespaces.mount(str(names), os.path.realpath("/etc/resolv.conf"), flags=namespaces.MS_BIND)

        search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        kept = {key: text for key, text in os.environ.items() if not key.startswith(LAUNCHERS)}
        return subprocess.Popen(
            list(command),
            env={**kept, "PYTHONPATH": str(ROOT), "PATH": search, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            preexec_fn=enter,  # noqa: PLW1509  # one thread
        )


def srun(
    hosts: Hosts, line: str, *, only: int | None = None, tasks: int = 1, **variables: str
) -> list[subprocess.Popen[str]]:
    """Start a line on both hosts as srun does, so many tasks on each; ``only``: the other host never starts it.

    Source:
        srun(1), "OUTPUT ENVIRONMENT VARIABLES".
    """
    step = {
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": ",".join(NAMES),
        "SLURM_NTASKS": str(2 * tasks),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NODELIST": ",".join(NAMES),
        "SLURM_STEP_NUM_TASKS": str(2 * tasks),
        "SLURM_STEP_TASKS_PER_NODE": f"{tasks}(x2)",
    }
    return [
        hosts.start(
            number,
            ["sh", "-c", line],
            hosts=f"{FRONTEND[0]} {NAMES[0]}\n" if number else "",
            **step,
            SLURM_NODEID=str(number),
            SLURM_PROCID=str(number * tasks + task),
            SLURM_LOCALID=str(task),
            **variables,
        )
        for number in (0, 1)
        for task in range(tasks)
        if only in (None, number)
    ]


def finish(processes: Sequence[subprocess.Popen[str]], seconds: float = 90) -> list[tuple[int, str, str]]:
    """Wait for all; exit code, standard output and standard error of each."""
    outputs = [process.communicate(timeout=seconds) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, outputs, strict=True)]
