"""The options that only ``torchnet bench`` has: the table of flags, and their validation.

The table has the same form as `torchnet.config.settings`. Importing it loads only the standard library, so that
``torchnet bench --help`` takes at most 0.15 s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torchnet.bench.worker.busbw import COLLECTIVES, REDUCING, ROOTED
from torchnet.bench.worker.sizes import VALID_SIZE, Sizes, parse_size, size_text
from torchnet.config.parsing import (
    parse_duration,
    parse_nonempty,
    parse_number,
    parse_rate,
    parse_whole,
    quote,
)
from torchnet.config.setting import Field
from torchnet.config.settings import FIELDS
from torchnet.config.validation_errors import FieldProblem, did_you_mean

GROUP = "The benchmark"
BACKENDS = ("gloo", "nccl")
DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64")
REDOPS = ("sum", "avg", "max", "min", "prod")
_TIME = "0.5, 2s, 1min, … up to 1h"

OPTIONS = (
    Field("min_bytes", "--min-bytes", "Smallest message size.", VALID_SIZE, "1K", "SIZE", short="-b"),
    Field("max_bytes", "--max-bytes", "Largest message size.", VALID_SIZE, "256M", "SIZE", short="-e"),
    Field(
        "factor",
        "--factor",
        "Factor between consecutive sizes.",
        "a number greater than 1, such as 2",
        "4",
        "N",
        short="-f",
    ),
    Field(
        "iters",
        "--iters",
        "Number of timed calls for each size.",
        "a whole number from 1 to 1000000",
        "until the interval is narrow",
        "N",
    ),
    Field(
        "seconds",
        "--seconds",
        "Approximate time for the timed calls of one size, at least two calls.",
        _TIME,
        "1s",
        "TIME",
    ),
    Field(
        "warmup", "--warmup", "Warm-up calls for each size.", "a whole number from 0 to 10000", "2", "N", "-w"
    ),
    Field("dtype", "--dtype", "Data type of the elements.", ", ".join(DTYPES), "float32", "TYPE", "-d"),
    Field("redop", "--redop", "Reduction operation.", ", ".join(REDOPS), "sum", "OP"),
    Field("root", "--root", "Root rank of broadcast and reduce.", "a rank of the job", "0", "RANK"),
    Field(
        "backend",
        "--backend",
        "torch.distributed backend.",
        ", ".join(BACKENDS),
        "nccl if each process has a GPU, else gloo",
        "NAME",
    ),
    Field("no_check", "--no-check", "Do not check the results.", "true, false", switch=True),
    Field(
        "tcp_seconds",
        "--tcp-seconds",
        "Duration of raw TCP for each pair and direction; 0 skips it.",
        "0, or 0.1s to 10min",
        "1s",
        "TIME",
    ),
    Field(
        "streams", "--streams", "Parallel connections of raw TCP.", "a whole number from 1 to 64", "1", "N"
    ),
    Field(
        "pairs",
        "--pairs",
        "Measure raw TCP between all pairs of nodes, not only consecutive ones.",
        "true, false",
        switch=True,
    ),
    Field(
        "compare",
        "--compare",
        "Also measure this interface, for comparison.",
        "an interface name, such as eth0",
        metavar="IFNAME",
    ),
    Field(
        "line",
        "--line",
        "Line rate of the backend, instead of --rate or the rate that the interface reports.",
        "100gbit, 2.5gbit, …",
        metavar="RATE",
    ),
    Field("html", "--html", "Write an HTML report with plots; needs matplotlib.", "a path", metavar="FILE"),
    Field(
        "json",
        "--json",
        "Write the results as JSON; - is standard output.",
        "a path, or - for stdout",
        metavar="FILE",
    ),
)
BY_NAME = {option.path: option for option in OPTIONS}

# Options of a job that a benchmark sets itself: it runs torchnet's own script, which does not call torchnet.tune(), and
# rank 0's output carries its figures.
SETTLED = (
    "script", "args", "module", "no_python", "standalone", "rdzv_id", "role", "virtual_local_rank",
    "run.max_restarts", "run.stdin_rank", "output.log_dir", "output.tee", "output.redirects", "output.ranks",
    "output.local_ranks", "output.no_prefix", "output.prefix_template", "output.json", "output.measure",
    "output.min_share", "output.full_receipt", "tune.bucket_cap_mb", "tune.compress", "kubernetes.code",
    "kubernetes.detach",
)  # fmt: skip
_OWN_HELP = {
    "output.quiet": "Print only warnings, errors and the results, no progress.",
    "nnodes": "Number of workers (nodes).",
}
JOB_FIELDS = tuple(
    replace(field, help=_OWN_HELP.get(field.path, field.help))
    for field in FIELDS
    if field.path not in SETTLED
)
WORDS = (*COLLECTIVES, "all")


LEAST, MOST, FACTOR = 1 << 10, 256 << 20, 4.0
_INTERFACE = re.compile(r"[^\s/]{1,15}")
_SECONDS = (0.01, 3600.0)
# A slice is a twentieth of it. A pair measures one direction, the other, and both while the other nodes wait, and they
# give up after PATIENCE (worker/rank_context.py): the maximum leaves the same time again for connections and pings.
_TCP_SECONDS = (0.1, 600.0)
T = TypeVar("T")
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class BenchOptions:
    """The options of a benchmark, without those of its job.

    Times are in seconds, sizes in bytes, ``line`` in bits per second. ``largest_typed`` is true if the user set the
    largest size; a default may be lowered to fit into memory.
    """

    collectives: tuple[str, ...] = ("all_reduce",)
    sizes: Sizes = field(default_factory=lambda: Sizes(LEAST, MOST, FACTOR))
    largest_typed: bool = False
    dtype: str = "float32"
    redop: str = "sum"
    root: int = 0
    backend: str = ""
    warmup: int = 2
    iters: int | None = None
    seconds: float = 1.0
    tcp_seconds: float = 1.0
    streams: int = 1
    pairs: bool = False
    compare: str = ""
    line: int | None = None
    check: bool = True
    html: str | None = None
    json: str | None = None


@dataclass
class _Reader:
    given: Mapping[str, Any]
    problems: list[FieldProblem] = field(default_factory=list)

    def read(self, name: str, parse: Callable[[Any], T], default: T) -> T:
        if name not in self.given:
            return default
        raw = self.given[name]
        try:
            return parse(raw)
        except ValueError as error:
            self.wrong(name, f"{quote(raw)} {error}")
            return default

    def problems_of(self, *names: str) -> list[FieldProblem]:
        flags = [BY_NAME[name].flag for name in names]
        return [problem for problem in self.problems if problem.path in flags]

    def wrong(self, name: str, what: str, *, valid: bool = True) -> None:
        option = BY_NAME[name]
        self.problems.append(FieldProblem(option.flag, what, "", option.valid if valid else ""))


def read(words: Sequence[str], given: Mapping[str, Any]) -> tuple[BenchOptions, list[FieldProblem]]:
    """Parse the command line's collectives and options. An invalid option keeps its default.

    Returns:
        The options, and all problems found.
    """
    reader = _Reader(given)
    options = BenchOptions(
        collectives=_collectives(words, reader.problems),
        sizes=_sizes(reader),
        largest_typed="max_bytes" in given,
        dtype=reader.read("dtype", _one_of(DTYPES), "float32"),
        redop=reader.read("redop", _one_of(REDOPS), "sum"),
        root=reader.read("root", _whole(0, 999_999), 0),
        backend=reader.read("backend", _one_of(BACKENDS), ""),
        warmup=reader.read("warmup", _whole(0, 10_000), 2),
        iters=reader.read("iters", _whole(1, 1_000_000), None),
        seconds=reader.read("seconds", _time(*_SECONDS), 1.0),
        tcp_seconds=reader.read("tcp_seconds", _tcp_seconds, 1.0),
        streams=reader.read("streams", _whole(1, 64), 1),
        pairs=bool(given.get("pairs")),
        compare=reader.read("compare", _interface, ""),
        line=reader.read("line", _rate, None),
        check=not given.get("no_check"),
        html=reader.read("html", _file, None),
        json=reader.read("json", parse_nonempty, None),
    )
    if "iters" in given and "seconds" in given:
        reader.wrong("iters", "cannot be combined with --seconds", valid=False)
    if _same_file(options.html, options.json):
        reader.wrong("html", "is the same file as --json", valid=False)
    _effects(reader, options.collectives)
    return options, reader.problems


def _effects(reader: _Reader, collectives: Sequence[str]) -> None:
    """Report options that have no effect on the chosen collectives. An unknown collective may be a misspelling of one
    that the option applies to, so it suppresses the check."""
    known = set(collectives) <= set(COLLECTIVES)
    for name, having in (("redop", REDUCING), ("root", ROOTED)):
        if name in reader.given and known and not set(collectives) & set(having):
            what = f"has no effect: it applies only to {', '.join(having)}"
            reader.wrong(name, what, valid=False)


def _same_file(html: str | None, json: str | None) -> bool:
    """Return whether both paths lead to one file, through links too: the file written last would replace the other."""
    if html is None or json is None or json == "-":
        return False
    return os.path.realpath(html) == os.path.realpath(json)


def _collectives(words: Sequence[str], problems: list[FieldProblem]) -> tuple[str, ...]:
    names = [name.strip() for word in words for name in word.split(",")]
    found: list[str] = []
    for name in names:
        plain = name.lower().replace("-", "_")
        if plain not in WORDS:
            what = f"{quote(name)} is not a collective{did_you_mean(plain, (*WORDS, 'diff'))}"
            problems.append(FieldProblem("COLLECTIVES", what, "", ", ".join(WORDS)))
        found += COLLECTIVES if plain == "all" else [plain]
    return tuple(dict.fromkeys(found)) if names else ("all_reduce",)


def _sizes(reader: _Reader) -> Sizes:
    least = reader.read("min_bytes", parse_size, LEAST)
    most = reader.read("max_bytes", parse_size, MOST)
    factor = reader.read("factor", _factor, FACTOR)
    if least > most and not reader.problems_of("min_bytes", "max_bytes"):
        # An option that was set overrides the other one's default.
        if "max_bytes" not in reader.given:
            most = least
        elif "min_bytes" not in reader.given:
            least = most
        else:
            what = f"{size_text(least)} is more than --max-bytes {size_text(most)}"
            reader.wrong("min_bytes", what, valid=False)
            least = most
    sizes = Sizes(least, most, factor)
    if least > most:
        return Sizes(LEAST, MOST, FACTOR)
    try:
        sizes.series()
    except ValueError as error:
        reader.wrong("factor", f"{factor:g} {error}", valid=False)
        return Sizes(LEAST, MOST, FACTOR)
    return sizes


def _factor(raw: object) -> float:
    factor = parse_number(raw)
    if factor <= 1:
        raise ValueError("is not greater than 1, so the sizes would not grow")
    return factor


def _one_of(values: Sequence[str]) -> Callable[[Any], str]:
    def parse(raw: object) -> str:
        text = str(raw).lower()
        if text not in values:
            raise ValueError(f"is not a valid value{did_you_mean(text, values)}")
        return text

    return parse


def _whole(least: int, most: int) -> Callable[[Any], int]:
    return _between(parse_whole, least, most, "small", "large")


def _time(least: float, most: float) -> Callable[[Any], float]:
    return _between(parse_duration, least, most, "short", "long")


def _tcp_seconds(raw: object) -> float:
    return parse_duration(raw) and _time(*_TCP_SECONDS)(raw)


def _between(
    read: Callable[[Any], N], least: float, most: float, under: str, over: str
) -> Callable[[Any], N]:
    def parse(raw: object) -> N:
        number = read(raw)
        if not least <= number <= most:
            raise ValueError(f"is too {under if number < least else over}")
        return number

    return parse


def _interface(raw: object) -> str:
    text = parse_nonempty(raw)
    if not _INTERFACE.fullmatch(text) or not text.isprintable():
        raise ValueError("is not an interface name: up to 15 characters without spaces and /")
    return text


def _rate(raw: object) -> int:
    rate = parse_rate(raw)
    if not 1_000_000 <= rate <= 10**13:
        raise ValueError("is out of range: 1mbit to 10tbit")
    return rate


def _file(raw: object) -> str:
    text = parse_nonempty(raw)
    if text == "-":
        raise ValueError("is standard output, which shows the summary: name a file")
    return text
