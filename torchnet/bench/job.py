"""The job of a benchmark: the same as any other, with torchnet's own script; and what it cannot measure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torchnet.bench.asked import Asked
from torchnet.bench.memory import fitting
from torchnet.bench.options import SETTLED
from torchnet.bench.worker import plan
from torchnet.bench.worker.factors import REDUCING
from torchnet.errors import UsageError
from torchnet.names import TUNE_PREFIX, rail_interface
from torchnet.render.command import processes
from torchnet.runtimes.local import gpus
from torchnet.spec.model import LOOPBACK, JobSpec, Tune
from torchnet.spec.problems import Problem, SpecError
from torchnet.spec.resolve import Resolved, resolve

SCRIPT = str(Path(__file__).resolve().parent / "worker" / "run.py")
NEXT = "torchnet bench --help"


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
    nproc, have_gpus = _processes(job, environ)
    backend = asked.backend or ("nccl" if have_gpus else "gloo")
    problems = [*problems, *_disagreeing(asked, job, job.nnodes * nproc, backend, have_gpus)]
    asked, memory, notices, wrong = fitting(asked, job, nproc, on_gpus=have_gpus and backend == "nccl")
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


def _disagreeing(asked: Asked, job: JobSpec, ranks: int, backend: str, have_gpus: bool) -> list[Problem]:
    """What is right by itself, and cannot be with this job. ``backend``: which one it will be."""
    wrong = []
    if asked.root >= ranks:
        wrong.append(Problem("--root", f"is {asked.root}, and the job's ranks are 0 to {ranks - 1}"))
    where = "say --gpus N" if job.on == "kubernetes" else "this machine has none for each process"
    if backend == "nccl" and not have_gpus:
        wrong.append(Problem("--backend", f"nccl needs a GPU for each process: {where}"))
    # Gloo's average is a sum that is divided in place, which torch refuses for whole numbers. Before torch 2.8 there is
    # none at all; which torch it will be is not known here, and the ranks say what it lacks.
    whole = asked.dtype.startswith(("int", "uint"))
    if backend == "gloo" and asked.redop == "avg" and whole and set(asked.collectives) & set(REDUCING):
        why = "--backend is gloo" if asked.backend else f"without a GPU for each process it is Gloo: {where}"
        wrong.append(Problem("--redop", f"avg of {asked.dtype} is NCCL's alone, and {why}"))
    return [*wrong, *_nothing_to_compare(asked, job), *_nothing_between_nodes(asked, job)]


def _nothing_to_compare(asked: Asked, job: JobSpec) -> list[Problem]:
    if not asked.compare:
        return []
    wrong = []
    rails = [rail_interface(rail) for rail in range(job.network.rails)]
    if job.network.networks == (LOOPBACK,):
        wrong.append(Problem("--compare", "has nothing to compare with on loopback"))
    elif asked.compare in rails[:1]:
        wrong.append(Problem("--compare", f"{asked.compare} is the backend's own interface", "", "eth0"))
    elif job.on == "local" and asked.compare not in ("eth0", *rails):
        others = ", ".join(["eth0", *rails[1:]])
        wrong.append(Problem("--compare", f'there is no "{asked.compare}" in a local node', "", others))
    if job.nnodes == 1:
        wrong.append(Problem("--compare", "needs two nodes: what one node does crosses no network"))
    return wrong


def _nothing_between_nodes(asked: Asked, job: JobSpec) -> list[Problem]:
    wrong = []
    if asked.line is not None and job.nnodes == 1:
        wrong.append(Problem("--line", "needs two nodes: what one node does crosses no line"))
    for flag, typed in (("--pairs", asked.pairs), ("--streams", asked.streams != Asked.streams)):
        if typed and job.nnodes == 1:
            wrong.append(Problem(flag, "needs two nodes: there is no raw TCP within one"))
        elif typed and not asked.tcp_seconds:
            wrong.append(Problem(flag, "is about raw TCP, which --tcp-seconds 0 leaves out"))
    return wrong


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


def check_script() -> None:
    """Raises UsageError where torchnet's own script cannot be run: installed where others may not read, say."""
    from torchnet.spec.script import check_script as check

    wrong = check(JobSpec(script=SCRIPT), "/")
    if wrong:
        raise UsageError(
            "\n  ".join(["the benchmark's script cannot be run:", *wrong]), fix="install torchnet anew"
        )
