"""How many nodes and processes a command line means that does not say it, and the line that tells the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torchnet.cli.torchrun_compat import COMMON_FLAGS, TORCHRUN_FLAGS, from_variable
from torchnet.config.settings import BY_PATH
from torchnet.config.sources import DEFAULT, FLAG

if TYPE_CHECKING:
    from torchnet.config.resolution import Resolved

# What sbatch and srun set (srun(1), output environment variables). Others are settings that users export.
_SLURM = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_STEP_ID", "SLURM_NODEID", "SLURM_PROCID")
_TORCHRUN = ("TORCHELASTIC_", "TORCH_ELASTIC_")  # what its variables other than PET_* begin with
_COUNT = "--nnodes"


def is_single(
    values: Mapping[str, object], typed: Mapping[str, object], resolved: Resolved, environ: Mapping[str, str]
) -> bool:
    """Return whether a local job without a number of nodes has one node, as under torchrun.

    It has if the command line or the environment is one for torchrun or Slurm, or if the machine has GPUs.

    Args:
        values: Values of typer's parameters.
        typed: Fields that torchnet's own flags set on the command line.
        resolved: The job as it is resolved so far.
        environ: Environment variables.
    """
    from torchnet.launcher.gpus import visible

    if resolved.job.on != "local" or resolved.origins["nnodes"].layer != DEFAULT:
        return False
    return (
        _has_flag(values, typed)
        or any(
            from_variable(flag, environ) for flag in (*COMMON_FLAGS, *(one.flag for one in TORCHRUN_FLAGS))
        )
        or any(environ[name] for name in environ if name in _SLURM or name.startswith(_TORCHRUN))
        or bool(visible({**environ, **resolved.job.env}))
    )


def is_one_process(resolved: Resolved) -> bool:
    """Return whether a job on several hosts without a number of processes has one on each, as under torchrun."""
    return resolved.job.on == "hosts" and resolved.origins["nproc_per_node"].layer == DEFAULT


def _has_flag(values: Mapping[str, object], typed: Mapping[str, object]) -> bool:
    flags = {BY_PATH[path].flag for path in typed if path in BY_PATH}
    return not flags.isdisjoint(set(COMMON_FLAGS) - {_COUNT}) or any(
        values.get(one.parameter) is not None for one in TORCHRUN_FLAGS
    )


def first_line(resolved: Resolved, environ: Mapping[str, str]) -> str:
    """Return what a local launch does differently from torchrun with the same line, for its first line; else ""."""
    from torchnet.launcher.gpus import visible

    job, origin = resolved.job, resolved.origins["nnodes"]
    if job.on != "local" or job.output.quiet:
        return ""
    if origin.layer == DEFAULT and job.nnodes > 1:
        return f"no {_COUNT}: {job.nnodes} nodes, all on this machine; for a single one, as under torchrun: {_COUNT} 1"
    gpus = visible({**environ, **job.env})
    if origin.layer == FLAG and job.nnodes > 1:
        each = len(gpus) // job.nnodes if job.nproc_per_node is None else 1
        count = f", {each} processes each, one per GPU (--nproc-per-node 1 for one)" if each > 1 else ""
        return f"{_COUNT} {job.nnodes}: all nodes on this machine{count}"
    if job.nnodes == 1 and job.nproc_per_node is None and len(gpus) > 1:
        return (
            f"no --nproc-per-node: {len(gpus)} processes, one per GPU; torchrun starts 1: --nproc-per-node 1"
        )
    return ""
