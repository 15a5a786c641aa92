"""The machine's GPUs, divided among the local nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torchnet.errors import UsageError
from torchnet.units import counted

_ONE_EACH = "NCCL refuses two processes on one"


@dataclass(frozen=True)
class Shares:
    """Processes per node, each node's GPUs (None: all that the machine has), and a note for the user."""

    nproc: int
    gpus: tuple[tuple[str, ...], ...] | None
    note: str = ""


def visible(environ: Mapping[str, str], root: str = "/") -> tuple[str, ...]:
    """Return the GPUs that processes started here may use, as CUDA_VISIBLE_DEVICES names them.

    If no variable names them, this counts device files, because CUDA or NVML would load a driver library into the
    launcher.
    """
    # As in HIP (rocclr, device/rocm/rocdevice.cpp), which ignores empty variables; in CUDA, an empty one hides all.
    variable = environ.get("HIP_VISIBLE_DEVICES") or environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        return _valid(variable)
    count = sum(bool(re.fullmatch(r"nvidia\d+", name)) for name in _names(root, "dev"))
    if not count and (amd := _amd(root)):
        # HIP counts only these GPUs, from 0.
        count = len(_valid(environ.get("ROCR_VISIBLE_DEVICES", ",".join("x" * amd))))
    return tuple(map(str, range(count or _wsl(root))))


def _valid(variable: str) -> tuple[str, ...]:
    """Return a variable's entries up to the first invalid one (CUDA's programming guide, environment variables)."""
    names = [part.strip() for part in variable.split(",")]
    invalid = (number for number, name in enumerate(names) if not name or name.startswith("-"))
    return tuple(names[: next(invalid, len(names))])


def _amd(root: str) -> int:
    """Return the number of AMD GPUs: the nodes of the compute driver that are no CPU and whose device file is here."""
    if not os.path.exists(os.path.join(root, "dev/kfd")):
        return 0
    topology, devices = "sys/class/kfd/kfd/topology/nodes", _names(root, "dev/dri")
    minors = [_render_minor(os.path.join(root, topology, n, "properties")) for n in _names(root, topology)]
    return sum(f"renderD{minor}" in devices for minor in minors)


def _render_minor(path: str) -> str:
    try:
        with open(path) as file:
            found = re.search(r"(?m)^drm_render_minor (\d+)$", file.read())
    except OSError:
        return ""  # a GPU of another container (the kernel answers EPERM)
    return found[1] if found else ""


def _wsl(root: str) -> int:
    """Return 1 on WSL2 with CUDA: /dev/dxg is one file for all GPUs, and CUDA_VISIBLE_DEVICES names further ones."""
    return int(
        all(os.path.exists(os.path.join(root, p)) for p in ("dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"))
    )


def _names(root: str, folder: str) -> list[str]:
    try:
        return os.listdir(os.path.join(root, folder))
    except OSError:
        return []


def share(nnodes: int, nproc_per_node: int | str | None, gpus: tuple[str, ...], cpus: int) -> Shares:
    """Divide ``gpus`` among ``nnodes`` nodes. A single node gets all of them, as under torchrun.

    Args:
        nproc_per_node: ``--nproc-per-node``; None if it is not set.

    Raises:
        UsageError: several nodes have more processes than GPUs, or "gpu" with fewer GPUs than nodes.
    """
    each = len(gpus) // nnodes
    if nproc_per_node == "cpu":
        return Shares(max(1, cpus // nnodes), _none(nnodes) if gpus and nnodes > 1 else None)
    if nproc_per_node == "gpu" and not each:
        raise UsageError(
            f"--nproc-per-node gpu: {counted(len(gpus), 'GPU')} for {counted(nnodes, 'node')}",
            fix="use --nproc-per-node cpu, or fewer nodes",
        )
    if isinstance(nproc_per_node, int):
        world_size = nnodes * nproc_per_node
        too_many = 0 < len(gpus) < world_size
        if too_many and nnodes > 1:
            raise UsageError(
                f"{counted(nnodes, 'node')} × {counted(nproc_per_node, 'process')} = {world_size}, but there are only "
                f"{counted(len(gpus), 'visible GPU')}: {_ONE_EACH}",
                fix=f"--nnodes {min(nnodes, len(gpus))} --nproc-per-node {max(1, len(gpus) // nnodes)}, "
                "or CUDA_VISIBLE_DEVICES= to run on the CPU",
            )
        if nnodes == 1:
            shared = (
                f"{counted(world_size, 'process')} share {counted(len(gpus), 'visible GPU')}: {_ONE_EACH}"
            )
            return Shares(nproc_per_node, None, shared if too_many else "")
        return Shares(nproc_per_node, _split(gpus, nnodes, nproc_per_node) if gpus else None)
    if each:
        return Shares(each, _split(gpus, nnodes, each) if nnodes > 1 else None)
    if nproc_per_node == "auto" and not gpus:
        return Shares(max(1, cpus // nnodes), None)
    if gpus:
        note = (
            f"{counted(len(gpus), 'GPU')} for {counted(nnodes, 'node')}: running on the CPU "
            f"(--nnodes {len(gpus)} would use it)"
        )
        return Shares(1, _none(nnodes), note)
    return Shares(1, None)


def _split(gpus: tuple[str, ...], nnodes: int, each: int) -> tuple[tuple[str, ...], ...]:
    return tuple(gpus[node * each : (node + 1) * each] for node in range(nnodes))


def _none(nnodes: int) -> tuple[tuple[str, ...], ...]:
    return ((),) * nnodes
