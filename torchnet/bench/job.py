"""The job of a benchmark: the same as any other, with torchnet's own script; and whether the sizes fit the memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torchnet.agent.memory import limit
from torchnet.bench.asked import Asked
from torchnet.bench.options import SETTLED
from torchnet.bench.worker import plan
from torchnet.bench.worker.sizes import Sizes, size_text
from torchnet.errors import UsageError
from torchnet.names import TUNE_PREFIX
from torchnet.render.command import processes
from torchnet.runtimes.local import gpus
from torchnet.spec.grammar import amount
from torchnet.spec.model import LOOPBACK, JobSpec, Tune
from torchnet.spec.problems import Problem, SpecError
from torchnet.spec.resolve import Resolved, resolve

SCRIPT = str(Path(__file__).resolve().parent / "worker" / "run.py")
NEXT = "torchnet bench --help"
COPIES = 4  # of a message that a rank holds at most: input, output, what must come out, and its check
OWN = 512 << 20  # bytes of a process with torch, before its first tensor


@dataclass(frozen=True)
class Planned:
    """``notices`` are for people, one line each; ``asked`` is what is left of it in this memory."""

    resolved: Resolved
    asked: Asked
    notices: tuple[str, ...] = ()


def planned(
    asked: Asked,
    problems: list[Problem],
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: str,
    config: str | None,
    random: str,
) -> Planned:
    """The job that measures what was asked for. ``random`` is the end of the run's name, where it has none.

    Raises:
        SpecError: with all that is wrong, ``problems`` included.
    """
    own: dict[str, object] = {"script": SCRIPT, "args": ()}
    try:
        resolved = resolve({**flags, **own}, environ, cwd, config, unread=SETTLED)
    except SpecError as error:
        raise SpecError([*error.problems, *problems], about="this benchmark", fix=NEXT) from None
    job = resolved.job
    nproc, on_gpus = _processes(job, environ)
    problems = [*problems, *_disagreeing(asked, job, job.nnodes * nproc, on_gpus)]
    asked, memory, notices, wrong = _fitting(asked, job, nproc, on_gpus)
    if problems or wrong:
        raise SpecError([*problems, *wrong], about="this benchmark", fix=NEXT)
    arguments = ("--plan", plan.encode(_plan(asked, job, memory)))
    update: dict[str, object] = {"args": arguments, "run_id": job.run_id or f"bench-{random}"}
    if asked.tune:
        update["tune"] = Tune()
        update["env"] = {name: value for name, value in job.env.items() if not name.startswith(TUNE_PREFIX)}
    if asked.tune and job.tune.model_fields_set:
        names = ", ".join(sorted(job.tune.model_fields_set))
        notices = (*notices, f"a tuning begins with torch's own settings: {names} of the table tune left out")
    return Planned(replace(resolved, job=job.model_copy(update=update)), asked, notices)


def _processes(job: JobSpec, environ: Mapping[str, str]) -> tuple[int, bool]:
    """How many processes each node has, and whether they have GPUs.

    Raises:
        UsageError: this machine has too few.
    """
    if job.on == "kubernetes":
        return processes(job), bool(job.kubernetes.gpus)
    visible = gpus.visible({**environ, **job.env})
    shares = gpus.share(job.nnodes, job.nproc_per_node, visible, len(os.sched_getaffinity(0)))
    return shares.nproc, any(shares.gpus or ())


def _disagreeing(asked: Asked, job: JobSpec, ranks: int, on_gpus: bool) -> list[Problem]:
    """What is right by itself, and cannot be with this job."""
    wrong = []
    if asked.root >= ranks:
        wrong.append(Problem("--root", f"is {asked.root}, and the job's ranks are 0 to {ranks - 1}"))
    if asked.backend == "nccl" and not on_gpus:
        where = "say --gpus N" if job.on == "kubernetes" else "this machine has none for each process"
        wrong.append(Problem("--backend", f"nccl needs a GPU for each process: {where}"))
    rails = [f"net{rail + 1}" for rail in range(job.network.rails)]
    if asked.compare and job.network.networks == (LOOPBACK,):
        wrong.append(Problem("--compare", "has nothing to compare with on loopback"))
    elif asked.compare and asked.compare in rails[:1]:
        wrong.append(Problem("--compare", f"{asked.compare} is the backend's own interface", "", "eth0"))
    elif asked.compare and job.on == "local" and asked.compare not in ("eth0", *rails):
        wrong.append(
            Problem(
                "--compare",
                f'there is no "{asked.compare}" in a local node',
                "",
                ", ".join(["eth0", *rails[1:]]),
            )
        )
    if asked.compare and job.nnodes == 1:
        wrong.append(Problem("--compare", "needs two nodes: what one node does crosses no network"))
    for flag, typed in (("--pairs", asked.pairs), ("--streams", asked.streams != Asked.streams)):
        if typed and job.nnodes == 1:
            wrong.append(Problem(flag, "needs two nodes: there is no raw TCP within one"))
        elif typed and not asked.tcp_seconds:
            wrong.append(Problem(flag, "is about raw TCP, which --tcp-seconds 0 leaves out"))
    return wrong


def _fitting(
    asked: Asked, job: JobSpec, nproc: int, on_gpus: bool
) -> tuple[Asked, int | None, tuple[str, ...], list[Problem]]:
    """(what fits, a rank's bytes where they are known, notices, problems)."""
    memory, where, fix = _memory(job, nproc, on_gpus)
    series = asked.sizes.series()
    most = series[-1]  # which is less than was asked for where the factor does not lead there
    if memory is None or most * COPIES <= memory:
        return asked, memory, (), []
    fitting = [size for size in series if size * COPIES <= memory]
    need = f"{size_text(most)} needs {_mib(most * COPIES)} in each rank ({COPIES} copies), and {where}"
    if asked.most_typed or not fitting:
        largest = f"; {size_text(memory // COPIES >> 20 << 20)} would fit" if memory >= COPIES << 20 else ""
        flag = "--min-bytes" if len(series) == 1 and not asked.most_typed else "--max-bytes"
        return asked, memory, (), [Problem(flag, f"{need}{largest}{fix}")]
    smaller = replace(asked, sizes=Sizes(asked.sizes.least, fitting[-1], asked.sizes.factor))
    return smaller, memory, (f"the largest size is {size_text(fitting[-1])}: {need}",), []


def _memory(job: JobSpec, nproc: int, on_gpus: bool) -> tuple[int | None, str, str]:
    """(bytes of tensors for a rank, how that is known, what would help); None where it is not known here."""
    if on_gpus:
        return None, "", ""  # the GPUs' own memory, which each rank asks for
    if job.on == "kubernetes":
        told = job.kubernetes.memory or f"{2 * nproc}Gi"
        worker = int(amount(told.partition(":")[2] or told.partition(":")[0]))
        rank = max(0, worker // nproc - OWN)
        return rank, f"a worker's memory, {told}, leaves {_mib(rank)} for one", "; --memory gives more"
    free = available()
    if free is None:
        return None, "", ""
    ranks = job.nnodes * nproc
    rank = max(0, free // ranks - OWN)
    return rank, f"{_mib(free)} are free for all {ranks} on this machine, so {_mib(rank)} for one", ""


def available(meminfo: str = "/proc/meminfo") -> int | None:
    """Bytes that processes started here could take: of the machine, and of this process's control group."""
    try:
        lines = dict(line.split(":", 1) for line in Path(meminfo).read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError, IndexError):
        return None
    most = limit()
    return free if most is None else min(free, most)


def _plan(asked: Asked, job: JobSpec, memory: int | None) -> plan.Plan:
    apart = job.nnodes > 1 and asked.tcp_seconds > 0
    made = plan.Plan(
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
        tune=asked.tune,
        tune_numerics=asked.tune_numerics,
    )
    return made if memory is None else replace(made, memory=memory)


def _mib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"


def check_script() -> None:
    """Raises UsageError where torchnet's own script cannot be run: installed where others may not read, say."""
    from torchnet.spec.script import check_script as check

    wrong = check(JobSpec(script=SCRIPT), "/")
    if wrong:
        raise UsageError(
            "\n  ".join(["the benchmark's script cannot be run:", *wrong]), fix="install torchnet anew"
        )
