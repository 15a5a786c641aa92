"""The job of a benchmark: an ordinary job that runs torchnet's own script.

Whether the largest messages fit into the ranks' memory is checked before the start, as far as the memory is known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torchnet.bench.bench_options import SETTLED, BenchOptions
from torchnet.bench.worker import worker_config
from torchnet.bench.worker.busbw import REDUCING
from torchnet.bench.worker.sizes import Sizes, size_text
from torchnet.config.job_spec import LOOPBACK, JobSpec
from torchnet.config.k8s_syntax import amount
from torchnet.config.resolution import Resolved, resolve
from torchnet.config.validation_errors import FieldProblem, SpecError
from torchnet.constants import rail_interface
from torchnet.errors import UsageError
from torchnet.k8s.objects.pod import memory as pod_memory
from torchnet.k8s.objects.pod import processes
from torchnet.linux import cgroup
from torchnet.local import gpus

COPIES = 4  # of a message that a rank may hold: input, output, expected result, and the check
OWN = 512 << 20  # bytes of a process with torch, before its first tensor


def fitting(
    asked: BenchOptions, job: JobSpec, nproc: int, on_gpus: bool
) -> tuple[BenchOptions, int | None, tuple[str, ...], list[FieldProblem]]:
    """Lower the largest size to what fits into the ranks' memory.

    Args:
        asked: The options.
        job: The job.
        nproc: Processes on each node.
        on_gpus: Whether tensors are in GPU memory.

    Returns:
        The options that fit, the bytes available to a rank if known, notices, and problems.
    """
    memory, where, fix = _memory(job, nproc, on_gpus)
    series = asked.sizes.series()
    largest = series[-1]  # may be less than --max-bytes, if the factor skips that
    if memory is None or largest * COPIES <= memory:
        return asked, memory, (), []
    fits = [size for size in series if size * COPIES <= memory]
    need = f"{size_text(largest)} needs {_mib(largest * COPIES)} in each rank ({COPIES} copies), but {where}"
    if asked.largest_typed or not fits:
        would = f"; {size_text(memory // COPIES >> 20 << 20)} would fit" if memory >= COPIES << 20 else ""
        flag = "--min-bytes" if len(series) == 1 and not asked.largest_typed else "--max-bytes"
        return asked, memory, (), [FieldProblem(flag, f"{need}{would}{fix}")]
    smaller = replace(asked, sizes=Sizes(asked.sizes.least, fits[-1], asked.sizes.factor))
    return smaller, memory, (f"lowered the largest size to {size_text(fits[-1])}: {need}",), []


def _memory(job: JobSpec, nproc: int, on_gpus: bool) -> tuple[int | None, str, str]:
    """Return (bytes for a rank's tensors, the reason, a remedy); the bytes are None if they are not known here."""
    if on_gpus:
        return None, "", ""  # the GPUs' memory; each rank queries its own
    if job.on == "kubernetes":
        told = pod_memory(job)
        worker = int(amount(told.partition(":")[2] or told.partition(":")[0]))
        rank = max(0, worker // nproc - OWN)
        return rank, f"a worker's memory ({told}) leaves {_mib(rank)} for each rank", "; increase --memory"
    found = available()
    if found is None:
        return None, "", ""
    free, where = found
    ranks = job.nnodes * nproc
    rank = max(0, free // ranks - OWN)
    return rank, f"{_mib(free)} of free memory {where} leave {_mib(rank)} for each rank", ""


def available(
    meminfo: Path = Path("/proc/meminfo"), root: Path = cgroup.ROOT, own: Path = cgroup.OWN
) -> tuple[int, str] | None:
    """Return (bytes available to processes started here, where): of the machine, or of this process's control group or
    one of its ancestors, whichever has the least left. None if the machine does not report its memory."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError, IndexError):
        return None
    left = [max(0, group.limit - group.used) for group in cgroup.memory(root, own)]
    return min([(free, "on this machine"), *((one, "in this control group") for one in left)])


def _mib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"


SCRIPT = str(Path(__file__).resolve().parent / "worker" / "run.py")
NEXT = "torchnet bench --help"
_ONE_NODE = "needs at least two nodes: a single node uses no network"


@dataclass(frozen=True)
class BenchJob:
    """``notices`` are lines for the user; ``asked`` has the options, reduced to what fits into memory."""

    resolved: Resolved
    asked: BenchOptions
    notices: tuple[str, ...] = ()


def planned(
    asked: BenchOptions,
    problems: list[FieldProblem],
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: str,
    config: str | None,
    random: str,
) -> BenchJob:
    """Plan the job that measures what the options ask for. ``random`` ends the run's name if it has none.

    Raises:
        SpecError: With all problems, ``problems`` included.
    """
    own: dict[str, object] = {"script": SCRIPT, "args": ()}
    try:
        resolved = resolve({**flags, **own}, environ, cwd, config, unread=SETTLED)
    except SpecError as error:
        raise SpecError([*error.problems, *problems], about="this benchmark", fix=NEXT) from None
    job = resolved.job
    nproc, have_gpus = _processes(job, environ)
    backend = asked.backend or ("nccl" if have_gpus else "gloo")
    problems = [*problems, *_disagreeing(asked, job, job.nnodes * nproc, backend, have_gpus)]
    asked, memory, notices, wrong = fitting(asked, job, nproc, on_gpus=have_gpus and backend == "nccl")
    if problems or wrong:
        raise SpecError([*problems, *wrong], about="this benchmark", fix=NEXT)
    arguments = ("--plan", worker_config.encode(_plan(asked, job, memory)))
    update: dict[str, object] = {"args": arguments, "run_id": job.run_id or f"bench-{random}"}
    return BenchJob(replace(resolved, job=job.model_copy(update=update)), asked, notices)


def _processes(job: JobSpec, environ: Mapping[str, str]) -> tuple[int, bool]:
    """Return the number of processes on each node, and whether they have GPUs.

    Raises:
        UsageError: This machine has too few GPUs.
    """
    if job.on == "kubernetes":
        return processes(job), bool(job.kubernetes.gpus)
    visible = gpus.visible({**environ, **job.env})
    shares = gpus.share(job.nnodes, job.nproc_per_node, visible, len(os.sched_getaffinity(0)))
    return shares.nproc, any(shares.gpus or ())


def _disagreeing(
    asked: BenchOptions, job: JobSpec, ranks: int, backend: str, have_gpus: bool
) -> list[FieldProblem]:
    """Find options that are valid by themselves but not with this job. ``backend`` is the backend that the job will
    use."""
    wrong = []
    if asked.root >= ranks:
        wrong.append(FieldProblem("--root", f"is {asked.root}, but the job has ranks 0 to {ranks - 1}"))
    where = "set --gpus N" if job.on == "kubernetes" else "this machine has too few"
    if backend == "nccl" and not have_gpus:
        wrong.append(FieldProblem("--backend", f"nccl needs a GPU for each process: {where}"))
    # Gloo's average divides the sum in place, which torch refuses for integers. Before torch 2.8 there is no average at
    # all; the version of torch is not known here, so the ranks report it.
    whole = asked.dtype.startswith(("int", "uint"))
    if backend == "gloo" and asked.redop == "avg" and whole and set(asked.collectives) & set(REDUCING):
        why = (
            "--backend is gloo"
            if asked.backend
            else f"the backend is Gloo without a GPU for each process: {where}"
        )
        wrong.append(FieldProblem("--redop", f"avg of {asked.dtype} needs NCCL, but {why}"))
    return [*wrong, *_nothing_to_compare(asked, job), *_nothing_between_nodes(asked, job)]


def _nothing_to_compare(asked: BenchOptions, job: JobSpec) -> list[FieldProblem]:
    if not asked.compare:
        return []
    wrong = []
    rails = [rail_interface(rail) for rail in range(job.network.rails)]
    if job.network.networks == (LOOPBACK,):
        wrong.append(FieldProblem("--compare", "is not available on loopback, which has no other network"))
    elif asked.compare in rails[:1]:
        wrong.append(
            FieldProblem("--compare", f"{asked.compare} is the backend interface itself", "", "eth0")
        )
    elif job.on == "local" and asked.compare not in ("eth0", *rails):
        others = ", ".join(["eth0", *rails[1:]])
        wrong.append(
            FieldProblem("--compare", f'a local node has no interface "{asked.compare}"', "", others)
        )
    if job.nnodes == 1:
        wrong.append(FieldProblem("--compare", _ONE_NODE))
    return wrong


def _nothing_between_nodes(asked: BenchOptions, job: JobSpec) -> list[FieldProblem]:
    wrong = []
    if asked.line is not None and job.nnodes == 1:
        wrong.append(FieldProblem("--line", _ONE_NODE))
    for flag, typed in (("--pairs", asked.pairs), ("--streams", asked.streams != BenchOptions.streams)):
        if typed and job.nnodes == 1:
            wrong.append(FieldProblem(flag, _ONE_NODE))
        elif typed and not asked.tcp_seconds:
            wrong.append(FieldProblem(flag, "has no effect: --tcp-seconds 0 skips raw TCP"))
    return wrong


def _plan(asked: BenchOptions, job: JobSpec, memory: int | None) -> worker_config.WorkerConfig:
    apart = job.nnodes > 1 and asked.tcp_seconds > 0
    made = worker_config.WorkerConfig(
        collectives=asked.collectives,
        sizes=tuple(asked.sizes.series()),
        dtype=asked.dtype,
        redop=asked.redop,
        root=asked.root,
        backend=asked.backend,
        warmup=asked.warmup,
        iters=asked.iters,
        seconds=asked.seconds,
        check=asked.check,
        pairs=("all" if asked.pairs else "ring") if apart else "none",
        streams=asked.streams,
        tcp_seconds=asked.tcp_seconds or 1.0,
        compare=asked.compare,
    )
    return made if memory is None else replace(made, memory=memory)


def check_script() -> None:
    """Check that torchnet's own script can be run.

    Raises:
        UsageError: It cannot, for example because torchnet is installed where others may not read.
    """
    from torchnet.config.script_check import check_script as check

    wrong = check(JobSpec(script=SCRIPT), "/")
    if wrong:
        raise UsageError(
            "\n  ".join(["the benchmark's script cannot be run:", *wrong]), fix="reinstall torchnet"
        )
