"""``torchnet bench [COLLECTIVES] [FLAGS]``: measure the backend's throughput, raw and through PyTorch."""

from __future__ import annotations

import os
from functools import partial
from textwrap import fill, indent
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from torchnet.bench.bench_options import GROUP, JOB_FIELDS, OPTIONS
from torchnet.cli import multi_host
from torchnet.cli.cmd_launch import dry_run, output_format
from torchnet.cli.torchrun_compat import OF_HOSTS
from torchnet.cli.typer_parameters import (
    PlainCommand,
    current_flag,
    field_parameters,
    given_fields,
    parameter_name,
    signature,
    torchrun_parameters,
)
from torchnet.config.settings import Field
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.bench.results import Results

_WORDS = "words"
_DIFF = """\
compares two result files of --json. Its exit code is 0 if nothing is worse beyond noise; 1 if the new run is slower,
has wrong results, ended early, has a new problem, or lacks a measurement of the old run; 2 if the two runs have nothing
in common.
"""
HELP = f"""\
Measure the backend network: collectives in the format of nccl-tests, raw TCP, and the percentage of the line rate.

COLLECTIVES is a comma-separated list of all_reduce, all_gather, reduce_scatter, broadcast, reduce, all_to_all and
send_recv, or all. [all_reduce] Sizes are numbers of bytes such as 8, 32K, 1M or 2G (powers of 1024).

The benchmark runs as a job like that of `torchnet launch`: on two local nodes, with --on kubernetes, or on several
hosts, where the same line is started on each (by srun, or with --node-rank and --master-addr, or --rdzv-endpoint). The
flags of the job can also be set by TORCHNET_* variables, --config or torchnet.toml; those of the benchmark only here.

The exit code is that of the job, or 1 if a result is wrong. Findings do not affect it: see `findings` in --json.

For users of nccl-tests: -b, -e, -f, -w and -d are the same. Use --iters for -n (here the namespace), --redop for -o
(here the output format of --dry-run) and --root for -r.

torchnet bench diff OLD NEW {_DIFF}"""
DIFF_HELP = f"""\
Usage: torchnet bench diff OLD NEW

{indent(fill(_DIFF[0].upper() + _DIFF[1:], 78), "  ")}
"""


class BenchCommand(PlainCommand):
    """Records the command line as it was typed, for the results."""

    headings: ClassVar[tuple[str, ...]] = (GROUP, *PlainCommand.headings)
    fields: ClassVar[tuple[Field, ...]] = JOB_FIELDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as `PlainCommand` does, but print separate help for ``diff``, which has no flags."""
        if args[:1] == ["diff"] and {"--help", "-h"} & {*args} and not ctx.resilient_parsing:
            typer.echo(DIFF_HELP, nl=False)
            ctx.exit()
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the command, with options from the benchmark's table and from the job's."""
    app.command(
        "bench",
        cls=BenchCommand,
        help=HELP,
        short_help="Measure the backend network.",
        options_metavar="[COLLECTIVES] [FLAGS]",
        context_settings={"allow_extra_args": True, "token_normalize_func": current_flag},
    )(_command())


def _command() -> Any:
    def bench(context: typer.Context, **values: Any) -> None:
        context.obj.action = partial(run, values, list(context.args), context.meta[_WORDS])

    bench.__signature__ = signature(  # type: ignore[attr-defined]
        [
            *field_parameters(OPTIONS, group=GROUP),
            *field_parameters(JOB_FIELDS),
            *torchrun_parameters(OF_HOSTS),
        ],
        "Print the resolved job, or on Kubernetes its objects, and exit.",
    )
    bench.__annotations__ = {}
    return bench


def run(values: dict[str, Any], words: list[str], words_typed: tuple[str, ...]) -> int:
    """Run the benchmark, or compare two results, and return the exit code."""
    if words[:1] == ["diff"]:
        if any(value is not None for value in values.values()):
            raise UsageError("torchnet bench diff accepts no flags", fix="torchnet bench diff OLD NEW")
        return diff(words[1:])
    from torchnet.bench.bench_options import read
    from torchnet.bench.benchmark import plan
    from torchnet.bench.benchmark import run as measure
    from torchnet.cli.app import version
    from torchnet.cli.entry_point import say
    from torchnet.cli.torchrun_compat import from_variables
    from torchnet.runtime import working_directory

    form = output_format(values["form"], bool(values["dry_run"]))
    own = {option.path: values.get(parameter_name(option)) for option in OPTIONS}
    request, problems = read(words, {name: value for name, value in own.items() if value is not None})
    cwd = working_directory()
    typed = given_fields(values)
    hosts = multi_host.plan(values, os.environ)
    if hosts is not None:
        typed = _of_nodes(from_variables(values, typed, os.environ)) | typed
    planned = plan(
        request,
        problems,
        typed,
        cwd,
        values["config"],
        lambda resolve: multi_host.resolved(hosts, resolve, "bench"),
    )
    for line in (*filter(None, (multi_host.notice(planned.resolved.job),)), *planned.resolved.warnings):
        say(f"torchnet: {line}")
    if values["dry_run"]:
        for line in planned.notices:
            say(f"torchnet: {line}")
        return dry_run(planned.resolved, cwd, form)
    return measure(planned, cwd, words_typed, version())


def _of_nodes(fields: dict[str, object]) -> dict[str, object]:
    return {path: value for path, value in fields.items() if path in ("nnodes", "nproc_per_node")}


def diff(paths: list[str]) -> int:
    """Print the differences between two result files.

    Returns:
        1 if anything is worse, else 0.

    Raises:
        UsageError: A file is unreadable or has no results, or the files have nothing in common.
    """
    from torchnet.bench.comparison import compare
    from torchnet.bench.comparison_text import text
    from torchnet.cli.entry_point import emit

    if len(paths) != 2:
        raise UsageError(
            f"torchnet bench diff compares two files: {len(paths)} given",
            fix="torchnet bench diff OLD NEW",
        )
    old, new = (_load(path) for path in paths)
    found = compare(old, new)
    emit(text(found).rstrip("\n") + "\n")
    if not found.series and not found.worse:
        raise UsageError(
            "nothing to compare: the files have no collective with the same size, type and interface, and no pair of "
            "nodes, in common",
            fix="run torchnet bench --json NEW with the collectives, sizes, nodes and network of OLD",
        )
    return 1 if found.worse else 0


def _load(path: str) -> Results:
    from torchnet.bench.results_file import read
    from torchnet.text import printable

    shown = printable(path, 200)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise UsageError(
            f"cannot read {shown}: {error.strerror}", fix="torchnet bench --json FILE writes result files"
        ) from None
    except ValueError as error:
        raise UsageError(f"{shown} is not a text file: {error}", fix="torchnet bench diff OLD NEW") from None
    try:
        return read(text, shown)
    except ValueError as error:
        raise UsageError(str(error), fix="torchnet bench diff OLD NEW") from None
