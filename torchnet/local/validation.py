"""What a local job needs from this machine: GPUs for its processes, and files where its nodes can see them."""

from __future__ import annotations

import os
import sys

from torchnet.config.job_spec import LOOPBACK, JobSpec
from torchnet.errors import UsageError
from torchnet.launcher import gpus
from torchnet.launcher.gpus import Shares
from torchnet.text import printable

_HIDDEN = "/dev/shm"


def shares_of(job: JobSpec) -> Shares:
    """Return the processes and GPUs of each node.

    Raises:
        UsageError: the machine has fewer GPUs, or the job fewer ranks, than its options say.
    """
    cpus = len(os.sched_getaffinity(0))
    shares = gpus.share(job.nnodes, job.nproc_per_node, gpus.visible({**os.environ, **job.env}), cpus)
    _check_ranks(job, job.nnodes * shares.nproc)
    return shares


def _check_ranks(job: JobSpec, world_size: int) -> None:
    """Check the ranks in the job's options.

    The job specification cannot: the number of processes per node may depend on the machine's GPUs.
    """
    stdin = () if job.run.stdin_rank is None else (job.run.stdin_rank,)
    asked = max((*job.output.ranks, *stdin), default=0)
    if asked >= world_size:
        raise UsageError(
            f"rank {asked} does not exist: the job's ranks are 0 to {world_size - 1}",
            fix="--nproc-per-node N",
        )


def check_files(job: JobSpec) -> None:
    """Check where the job's files are; on loopback they may be anywhere.

    Raises:
        UsageError: files are in /dev/shm, so the nodes would not see them, or what they write would be lost
            with them; names all.
    """
    if job.network.networks == (LOOPBACK,):
        return
    places = {"the working directory": os.getcwd(), "Python": sys.executable or ""}
    if not job.module and os.path.exists(job.script):
        places["the script"] = job.script
    if job.output.log_dir:
        places["--log-dir"] = job.output.log_dir
    hidden = [f"{what} {printable(path, 200)}" for what, path in places.items() if is_hidden(path)]
    if hidden:
        raise UsageError(
            f"each node has its own {_HIDDEN}, as a pod has, and does not see this machine's: {', '.join(hidden)}",
            fix="move it, for example to /tmp; or use --network loopback, where workers see this machine's",
        )


def is_hidden(path: str) -> bool:
    """Return whether the path is in a place of which each node has its own."""
    return os.path.commonpath([os.path.realpath(path), _HIDDEN]) == _HIDDEN
