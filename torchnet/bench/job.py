"""The job of a benchmark: an ordinary job that runs torchnet's own script.

Whether the largest messages fit into the ranks' memory is checked before the start, as far as the memory is known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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
from torchnet.launcher import gpus
from torchnet.linux import cgroup

COPIES = 4  # of a message that a rank may hold: input, output, expected result, and the check
OWN = 512 << 20  # bytes of a process with torch, before its first tensor


def fit_memory(
    options: BenchOptions, job: JobSpec, nproc: int, on_gpus: bool
) -> tuple[BenchOptions, int | None, tuple[str, ...], list[FieldProblem]]:
    """Lower the largest size to what fits into the ranks' memory.

    Args:
        options: The options.
        job: The job.
        nproc: Processes on each node.
        on_gpus: Whether tensors are in GPU memory.

    Returns:
        The options that fit, the bytes available to a rank if known, notices, and problems.
    """
    memory, where, fix = _memory(job, nproc, on_gpus)
    series = options.sizes.series()
    largest = series[-1]  # may be less than --max-bytes, if the factor skips that
    if memory is None or largest * COPIES <= memory:
        return options, memory, (), []
    fits = [size for size in series if size * COPIES <= memory]
    need = f"{size_text(largest)} needs {_mib(largest * COPIES)} in each rank ({COPIES} copies), but {where}"
    if options.largest_typed or not fits:
        would = f"; {size_text(memory // COPIES >> 20 << 20)} would fit" if memory >= COPIES << 20 else ""
        flag = "--min-bytes" if len(series) == 1 and not options.largest_typed else "--max-bytes"
        return options, memory, (), [FieldProblem(flag, f"{need}{would}{fix}")]
    smaller = replace(options, sizes=Sizes(options.sizes.least, fits[-1], options.sizes.factor))
    return smaller, memory, (f"lowered the largest size to {size_text(fits[-1])}: {need}",), []


def _memory(job: JobSpec, nproc: int, on_gpus: bool) -> tuple[int | None, str, str]:
    """Return (bytes for a rank's tensors, the reason, a remedy); the bytes are None if they are not known here."""
    if on_gpus:
        return None, "", ""  # the GPUs' memory; each rank queries its own
    if job.on == "kubernetes":
        requested = pod_memory(job)
        worker = int(amount(requested.partition(":")[2] or requested.partition(":")[0]))
        rank = max(0, worker // nproc - OWN)
        return (
            rank,
            f"a worker's memory ({requested}) leaves {_mib(rank)} for each rank",
            "; increase --memory",
        )
    found = available_memory()
    if found is None:
        return None, "", ""
    free, where = found
    ranks = nproc if job.on == "hosts" else job.nnodes * nproc
    rank = max(0, free // ranks - OWN)
    return rank, f"{_mib(free)} of free memory {where} leave {_mib(rank)} for each rank", ""


def available_memory(
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
Placed = Callable[[Callable[[Mapping[str, object], Mapping[str, str]], Resolved]], Resolved]
_ONE_NODE = "needs at least two nodes: a single node uses no network"


@dataclass(frozen=True)
class BenchJob:
    """``notices`` are lines for the user; ``options`` has the options, reduced to what fits into memory."""

    resolved: Resolved
    options: BenchOptions
    notices: tuple[str, ...] = ()


def plan_job(
    options: BenchOptions,
    problems: list[FieldProblem],
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: str,
    config: str | None,
    random: str,
    placed: Placed = lambda resolve: resolve({}, {}),
) -> BenchJob:
    """Plan the job that measures what the options ask for.

    Args:
        random: Ends the run's name if it has none.
        placed: Resolves the job where the command line puts it, with a function of further fields and their origins.

    Raises:
        SpecError: With all problems, ``problems`` included.
    """
    own: dict[str, object] = {"script": SCRIPT, "args": ()}
    try:
        resolved = placed(
            lambda more, shown: resolve(
                {**flags, **more, **own}, environ, cwd, config, unread=SETTLED, shown=shown
            )
        )
    except SpecError as error:
        raise SpecError([*error.problems, *problems], about="benchmark", fix=NEXT) from None
    job = resolved.job
    nproc, have_gpus = _processes(job, environ)
    backend = options.backend or ("nccl" if have_gpus else "gloo")
    problems = [*problems, *_find_conflicts(options, job, job.nnodes * nproc, backend, have_gpus)]
    options, memory, notices, wrong = fit_memory(options, job, nproc, on_gpus=have_gpus and backend == "nccl")
    if problems or wrong:
        raise SpecError([*problems, *wrong], about="benchmark", fix=NEXT)
    arguments = ("--plan", worker_config.encode(_plan(options, job, memory)))
    update: dict[str, object] = {"args": arguments}
    if job.on != "hosts":  # whose hosts get rank 0's
        update["run_id"] = job.run_id or f"bench-{random}"
    if job.kubernetes.spread is None:  # a job's own default would put workers with GPUs on one node
        update["kubernetes"] = job.kubernetes.model_copy(update={"spread": "soft"})
    return BenchJob(replace(resolved, job=job.model_copy(update=update)), options, notices)


def _processes(job: JobSpec, environ: Mapping[str, str]) -> tuple[int, bool]:
    """Return the number of processes on each node, and whether they have GPUs.

    Raises:
        UsageError: This machine has too few GPUs.
    """
    if job.on == "kubernetes":
        return processes(job), bool(job.kubernetes.gpus)
    visible = gpus.visible({**environ, **job.env})
    here = 1 if job.on == "hosts" else job.nnodes
    shares = gpus.share(here, job.nproc_per_node, visible, len(os.sched_getaffinity(0)))
    each = ((visible,) if job.nproc_per_node != "cpu" else ()) if shares.gpus is None else shares.gpus
    return shares.nproc, any(each)


def _find_conflicts(
    options: BenchOptions, job: JobSpec, ranks: int, backend: str, have_gpus: bool
) -> list[FieldProblem]:
    """Find options that are valid by themselves but not with this job. ``backend`` is the backend that the job will
    use."""
    wrong = []
    if options.root >= ranks:
        wrong.append(FieldProblem("--root", f"is {options.root}, but the job has ranks 0 to {ranks - 1}"))
    where = "set --gpus N" if job.on == "kubernetes" else "this machine has too few"
    if backend == "nccl" and not have_gpus:
        wrong.append(FieldProblem("--backend", f"nccl needs a GPU for each process: {where}"))
    # Gloo's average divides the sum in place, which torch refuses for integers. Before torch 2.8 there is no average at
    # all; the version of torch is not known here, so the ranks report it.
    whole = options.dtype.startswith(("int", "uint"))
    if backend == "gloo" and options.redop == "avg" and whole and set(options.collectives) & set(REDUCING):
        why = (
            "--backend is gloo"
            if options.backend
            else f"the backend is Gloo without a GPU for each process: {where}"
        )
        wrong.append(FieldProblem("--redop", f"avg of {options.dtype} needs NCCL, but {why}"))
    return [*wrong, *_check_compare(options, job), *_check_links(options, job)]


def _check_compare(options: BenchOptions, job: JobSpec) -> list[FieldProblem]:
    if not options.compare:
        return []
    wrong = []
    rails = [rail_interface(rail) for rail in range(job.network.rails)]
    if job.network.networks == (LOOPBACK,):
        wrong.append(FieldProblem("--compare", "is not available on loopback, which has no other network"))
    elif options.compare in rails[:1]:
        wrong.append(
            FieldProblem("--compare", f"{options.compare} is the backend interface itself", "", "eth0")
        )
    elif job.on == "local" and options.compare not in ("eth0", *rails):
        others = ", ".join(["eth0", *rails[1:]])
        wrong.append(
            FieldProblem("--compare", f'a local node has no interface "{options.compare}"', "", others)
        )
    if job.nnodes == 1:
        wrong.append(FieldProblem("--compare", _ONE_NODE))
    return wrong


def _check_links(options: BenchOptions, job: JobSpec) -> list[FieldProblem]:
    wrong = []
    if options.line is not None and job.nnodes == 1:
        wrong.append(FieldProblem("--line", _ONE_NODE))
    for flag, typed in (("--pairs", options.pairs), ("--streams", options.streams != BenchOptions.streams)):
        if typed and job.nnodes == 1:
            wrong.append(FieldProblem(flag, _ONE_NODE))
        elif typed and not options.tcp_seconds:
            wrong.append(FieldProblem(flag, "has no effect: --tcp-seconds 0 skips raw TCP"))
    return wrong


def _plan(options: BenchOptions, job: JobSpec, memory: int | None) -> worker_config.WorkerConfig:
    apart = job.nnodes > 1 and options.tcp_seconds > 0
    config = worker_config.WorkerConfig(
        collectives=options.collectives,
        sizes=tuple(options.sizes.series()),
        dtype=options.dtype,
        redop=options.redop,
        root=options.root,
        backend=options.backend,
        warmup=options.warmup,
        iters=options.iters,
        seconds=options.seconds,
        check=options.check,
        pairs=("all" if options.pairs else "ring") if apart else "none",
        streams=options.streams,
        tcp_seconds=options.tcp_seconds or 1.0,
        compare=options.compare,
        by_host=job.on == "hosts",
    )
    return config if memory is None else replace(config, memory=memory)


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
