"""The flags of ``torchnet bench`` that are not the job's: the same kind of table as `torchnet.spec.fields`.

Nothing but the standard library is imported: ``torchnet bench --help`` has 0.15 s.
"""

from __future__ import annotations

from dataclasses import replace

from torchnet.bench.worker.factors import COLLECTIVES
from torchnet.spec.field import Field
from torchnet.spec.fields import FIELDS

GROUP = "The benchmark"
BACKENDS = ("gloo", "nccl")
DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64")
REDOPS = ("sum", "avg", "max", "min", "prod")
_SIZE = "a number of bytes, or one with K, M or G behind it, from 1 to 1024G"
_TIME = "0.5, 2s, 1min, … up to 1h"

OPTIONS = (
    Field("min_bytes", "--min-bytes", "Smallest message.", _SIZE, "1K", "SIZE", short="-b"),
    Field("max_bytes", "--max-bytes", "Largest message.", _SIZE, "256M", "SIZE", short="-e"),
    Field(
        "factor",
        "--factor",
        "From one size to the next.",
        "a number greater than 1, as in 2",
        "4",
        "N",
        short="-f",
    ),
    Field(
        "iters",
        "--iters",
        "Exactly so many timed calls of each size.",
        "a whole number from 1 to 1000000",
        "until the interval is narrow",
        "N",
    ),
    Field(
        "seconds",
        "--seconds",
        "About so long for the timed calls of one size; two calls at least.",
        _TIME,
        "1s",
        "TIME",
    ),
    Field(
        "warmup", "--warmup", "Calls before the timed ones.", "a whole number from 0 to 10000", "2", "N", "-w"
    ),
    Field("dtype", "--dtype", "Type of the elements.", ", ".join(DTYPES), "float32", "TYPE", "-d"),
    Field("redop", "--redop", "What a reduction does.", ", ".join(REDOPS), "sum", "OP"),
    Field("root", "--root", "Root of broadcast and reduce.", "a rank of the job", "0", "RANK"),
    Field(
        "backend",
        "--backend",
        "Backend of torch.distributed.",
        ", ".join(BACKENDS),
        "nccl where each process has a GPU, else gloo",
        "NAME",
    ),
    Field("no_check", "--no-check", "Results are not checked.", "true, false", switch=True),
    Field(
        "tcp_seconds",
        "--tcp-seconds",
        "For raw TCP, each pair and direction; 0 leaves it out.",
        "0, or 0.1s to 10min",
        "1s",
        "TIME",
    ),
    Field(
        "streams", "--streams", "Connections of raw TCP at a time.", "a whole number from 1 to 64", "1", "N"
    ),
    Field(
        "pairs",
        "--pairs",
        "Raw TCP between all pairs of nodes, not only from each to the next.",
        "true, false",
        switch=True,
    ),
    Field(
        "compare",
        "--compare",
        "Measure this interface, too, side by side: eth0.",
        "an interface's name, as eth0",
        metavar="IFNAME",
    ),
    Field(
        "line",
        "--line",
        "Rate of the backend's line, in place of --rate or what the interface reports.",
        "100gbit, 2.5gbit, …",
        metavar="RATE",
    ),
    Field(
        "tune",
        "--tune",
        "Try DDP's buckets, Gloo's devices, NCCL's threads and the MTU; print the best as a [tool.torchnet] block.",
        "true, false",
        switch=True,
    ),
    Field(
        "tune_numerics",
        "--tune-numerics",
        "The same with compressed gradients, which change the results, and may be chosen, too.",
        "true, false",
        switch=True,
    ),
    Field(
        "html", "--html", "Report with plots, which needs matplotlib.", "the path of a file", metavar="FILE"
    ),
    Field("json", "--json", "Results; - is stdout.", "the path of a file, or - for stdout", metavar="FILE"),
)
BY_NAME = {option.path: option for option in OPTIONS}

# What a benchmark settles itself: its script is torchnet's own, which calls no torchnet.tune(), and rank 0's output is
# its figures, once.
SETTLED = (
    "script", "args", "module", "no_python", "standalone", "run.max_restarts", "run.stdin_rank", "output.log_dir",
    "output.tee", "output.redirects", "output.ranks", "output.json", "output.measure", "output.min_share",
    "tune.bucket_cap_mb", "tune.compress", "kubernetes.code", "kubernetes.detach",
)  # fmt: skip
_OWN_HELP = {"output.quiet": "No progress; only warnings, errors and the results."}
JOB_FIELDS = tuple(
    replace(field, help=_OWN_HELP.get(field.path, field.help))
    for field in FIELDS
    if field.path not in SETTLED
)
WORDS = (*COLLECTIVES, "all")
