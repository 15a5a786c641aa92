"""Whether the largest messages fit the memory that the ranks will have, as far as that is known before they start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torchnet.bench.asked import Asked
from torchnet.bench.worker import cgroup
from torchnet.bench.worker.sizes import Sizes, size_text
from torchnet.render.pod import memory as pod_memory
from torchnet.spec.grammar import amount
from torchnet.spec.model import JobSpec
from torchnet.spec.problems import Problem

COPIES = 4  # of a message that a rank holds at most: input, output, what must come out, and its check
OWN = 512 << 20  # bytes of a process with torch, before its first tensor


def fitting(
    asked: Asked, job: JobSpec, nproc: int, on_gpus: bool
) -> tuple[Asked, int | None, tuple[str, ...], list[Problem]]:
    """(what fits, a rank's bytes where they are known, notices, problems). ``on_gpus``: that is where tensors are."""
    memory, where, fix = _memory(job, nproc, on_gpus)
    series = asked.sizes.series()
    largest = series[-1]  # which is less than was asked for where the factor does not lead there
    if memory is None or largest * COPIES <= memory:
        return asked, memory, (), []
    fits = [size for size in series if size * COPIES <= memory]
    need = f"{size_text(largest)} needs {_mib(largest * COPIES)} in each rank ({COPIES} copies), and {where}"
    if asked.largest_typed or not fits:
        would = f"; {size_text(memory // COPIES >> 20 << 20)} would fit" if memory >= COPIES << 20 else ""
        flag = "--min-bytes" if len(series) == 1 and not asked.largest_typed else "--max-bytes"
        return asked, memory, (), [Problem(flag, f"{need}{would}{fix}")]
    smaller = replace(asked, sizes=Sizes(asked.sizes.least, fits[-1], asked.sizes.factor))
    return smaller, memory, (f"the largest size is {size_text(fits[-1])}: {need}",), []


def _memory(job: JobSpec, nproc: int, on_gpus: bool) -> tuple[int | None, str, str]:
    """(bytes of tensors for a rank, how that is known, what would help); None where it is not known here."""
    if on_gpus:
        return None, "", ""  # the GPUs' own memory, which each rank asks for
    if job.on == "kubernetes":
        told = pod_memory(job)
        worker = int(amount(told.partition(":")[2] or told.partition(":")[0]))
        rank = max(0, worker // nproc - OWN)
        return rank, f"a worker's memory, {told}, leaves {_mib(rank)} for one", "; --memory gives more"
    found = available()
    if found is None:
        return None, "", ""
    free, where = found
    ranks = job.nnodes * nproc
    rank = max(0, free // ranks - OWN)
    return rank, f"{_mib(free)} are free for all {ranks} {where}, so {_mib(rank)} for one", ""


def available(
    meminfo: Path = Path("/proc/meminfo"), root: Path = cgroup.ROOT, own: Path = cgroup.OWN
) -> tuple[int, str] | None:
    """(bytes that processes started here could take, of what): of the machine, or of this process's control group or
    one around it, whichever has the least left. None where the machine tells nothing."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError, IndexError):
        return None
    left = [max(0, group.limit - group.used) for group in cgroup.memory(root, own)]
    return min([(free, "on this machine"), *((one, "in this control group") for one in left)])


def _mib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"
