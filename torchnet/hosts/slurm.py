"""What srun tells a task about its job step. Pure.

Source:
    srun(1), "OUTPUT ENVIRONMENT VARIABLES"; a job's script has SLURM_JOB_… and no SLURM_STEP_… variables.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from torchnet.errors import UsageError

_PORTS = range(20000, 29000)  # below torchnet's own and below the ephemeral ones
_MOST_HOSTS = 10_000


@dataclass(frozen=True)
class SlurmStep:
    """The step of which this process is a task.

    Attributes:
        nodes: The number of hosts.
        node_id: This host's number.
        names: The hosts' names in the order of their numbers; () if the list cannot be read.
        local_tasks: The number of tasks on this host.
        shown: For messages.
        port: For a rendezvous, the same on all hosts.
    """

    nodes: int
    node_id: int
    names: tuple[str, ...]
    local_tasks: int
    shown: str
    port: int


def node_id(environ: Mapping[str, str]) -> int | None:
    """Return SLURM_NODEID; None if Slurm did not set it."""
    return _number(environ.get("SLURM_NODEID"))


def step_of(environ: Mapping[str, str]) -> SlurmStep | None:
    """Return the step; None outside srun."""
    number, nodes = node_id(environ), _number(environ.get("SLURM_STEP_NUM_NODES"))
    if number is None or nodes is None:
        return None
    names = expand(environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", ""))
    job = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID") or "0"
    step = environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID") or "0"
    return SlurmStep(
        nodes,
        number,
        names if len(names) == nodes else (),
        tasks_of(environ.get("SLURM_STEP_TASKS_PER_NODE", ""), number),
        f"Slurm step {job}.{step}",
        _PORTS[zlib.crc32(f"{job}.{step}".encode()) % len(_PORTS)],
    )


def check_tasks(step: SlurmStep, words: str) -> None:
    """Refuse several tasks on one host: torchnet starts its processes itself.

    Raises:
        UsageError: With the line that does it.
    """
    if step.local_tasks > 1:
        count = "" if words == "verify" else f" --nproc-per-node {step.local_tasks}"
        raise UsageError(
            f"srun starts {step.local_tasks} tasks on this host; torchnet, like torchrun, is started once on each "
            "host and starts the processes itself",
            fix=f"srun --ntasks-per-node 1 torchnet {words}{count} …",
        )


def tasks_of(text: str, number: int) -> int:
    """Return a node's entry in ``2(x3),1``; 1 if there is none."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", part.strip())
        if not found:
            return 1
        counts += [int(found[1])] * min(int(found[2] or 1), _MOST_HOSTS)
    return counts[number] if number < len(counts) else 1


def expand(text: str) -> tuple[str, ...]:
    """Return the hosts of a list such as ``gpu[01-03,7],login``; () if it cannot be read or is too long."""
    found: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text):
        names = [""]
        for literal, ranges in re.findall(r"([^\[\]]+)|\[([^\[\]]*)\]", part):
            endings = [literal] if literal else _numbers(ranges)
            if len(names) * len(endings) + len(found) > _MOST_HOSTS:
                return ()
            names = [name + ending for name in names for ending in endings]
        found += names
    return tuple(found)


def _numbers(text: str) -> list[str]:
    found: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not dash:
            found.append(first)
        elif first.isdecimal() and last.isdecimal() and int(last) - int(first) < _MOST_HOSTS:
            found += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,9}", text) else None
