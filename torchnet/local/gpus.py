"""The machine's GPUs, divided among the local nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torchnet.errors import UsageError


@dataclass(frozen=True)
class Shares:
    """Processes per node, each node's GPUs (None: the machine has none), and a note for the user."""

    nproc: int
    gpus: tuple[tuple[str, ...], ...] | None
    note: str = ""


def visible(environ: Mapping[str, str], device_folder: str = "/dev") -> tuple[str, ...]:
    """Return the GPUs that processes started here may use, as CUDA_VISIBLE_DEVICES names them.

    If the variable is unset, this counts device files, because CUDA or NVML would load a driver library into
    the launcher.
    """
    variable = environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        return tuple(part.strip() for part in variable.split(",") if part.strip() and part.strip() != "-1")
    try:
        found = [name[6:] for name in os.listdir(device_folder) if re.fullmatch(r"nvidia\d+", name)]
    except OSError:
        return ()
    return tuple(map(str, range(len(found))))


def share(nnodes: int, nproc_per_node: int | str | None, gpus: tuple[str, ...], cpus: int) -> Shares:
    """Divide ``gpus`` among ``nnodes`` nodes.

    Args:
        nproc_per_node: ``--nproc-per-node``; None if it is not set.

    Raises:
        UsageError: more processes than GPUs, or "gpu" with fewer GPUs than nodes.
    """
    each = len(gpus) // nnodes
    if nproc_per_node == "cpu":
        return Shares(max(1, cpus // nnodes), _none(nnodes) if gpus else None)
    if nproc_per_node == "gpu" and not each:
        raise UsageError(
            f"--nproc-per-node gpu: {len(gpus)} GPUs for {nnodes} nodes",
            fix="use --nproc-per-node cpu, or fewer nodes",
        )
    if isinstance(nproc_per_node, int):
        if gpus and nproc_per_node * nnodes > len(gpus):
            raise UsageError(
                f"{nnodes} nodes × {nproc_per_node} processes = {nproc_per_node * nnodes} processes, but this machine "
                f"has {len(gpus)} GPUs: NCCL refuses two processes on one",
                fix=f"--nnodes {min(nnodes, len(gpus))} --nproc-per-node {max(1, len(gpus) // nnodes)}, "
                "or CUDA_VISIBLE_DEVICES= to run on the CPU",
            )
        return Shares(nproc_per_node, _split(gpus, nnodes, nproc_per_node) if gpus else None)
    if each:
        return Shares(each, _split(gpus, nnodes, each))
    if nproc_per_node == "auto" and not gpus:
        return Shares(max(1, cpus // nnodes), None)
    if gpus:
        count = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
        note = f"{count} for {nnodes} nodes: running on the CPU (--nnodes {len(gpus)} would use it)"
        return Shares(1, _none(nnodes), note)
    return Shares(1, None)


def _split(gpus: tuple[str, ...], nnodes: int, each: int) -> tuple[tuple[str, ...], ...]:
    return tuple(gpus[node * each : (node + 1) * each] for node in range(nnodes))


def _none(nnodes: int) -> tuple[tuple[str, ...], ...]:
    return ((),) * nnodes
