"""``torchnet launch [FLAGS] SCRIPT [ARGS…]``: resolve the job, then print it or run it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli.torchrun_compat import full_flag
from torchnet.cli.typer_parameters import (
    FORMATS,
    PlainCommand,
    current_flag,
    field_parameters,
    given_fields,
    signature,
    torchrun_parameters,
)
from torchnet.errors import UsageError
from torchnet_launch import name_conflicts

if TYPE_CHECKING:
    from torchnet.cli.multi_host import HostPlan
    from torchnet.config.resolution import Resolved
    from torchnet.local.supervisor_process import Supervisor

HELP = """\
Run SCRIPT on many workers, with its collectives on the backend network.

All arguments after SCRIPT are passed to the script. Each flag can also be set as TORCHNET_FLAG in the environment, in
a job file (--config), in torchnet.toml, or under [tool.torchnet] in pyproject.toml. --dry-run shows the source of each
value.

The flags of torchrun are accepted, with - or _. --shutdown-timeout sets --grace.
One launch starts all nodes. A torchrun line for one of several hosts (--node-rank, --master-addr, --rdzv-endpoint,
PET_* variables, srun) is started on each host, as with torchrun, and makes one job.
"""


def register(app: typer.Typer) -> None:
    """Add the command, with options from the table of settings."""
    app.command(
        "launch",
        cls=PlainCommand,
        help=HELP,
        short_help="Run a script on many workers.",
        options_metavar="[FLAGS] SCRIPT [ARGS]...",
        context_settings={
            "allow_extra_args": True,
            # Everything after the script belongs to the script, even --help or a flag of torchnet.
            "allow_interspersed_args": False,
            "token_normalize_func": lambda name: full_flag(current_flag(name)),
        },
    )(_command())


def _command() -> Any:
    def launch(context: typer.Context, **values: Any) -> None:
        context.obj.action = partial(run, values, list(context.args))

    launch.__signature__ = signature(  # type: ignore[attr-defined]
        [*field_parameters(), *torchrun_parameters()],
        "Print the resolved job, or on Kubernetes its objects, and exit.",
    )
    launch.__annotations__ = {}
    return launch


def run(values: dict[str, Any], words: list[str]) -> int:
    """Resolve the job, then print it (dry run) or run it.

    Args:
        values: Values of the options, by parameter name; None if not given.
        words: The script and its arguments.

    Returns:
        The exit code.
    """
    from torchnet.cli.multi_host import plan
    from torchnet.local.supervisor_process import spawned_early

    planned = plan(values, os.environ)
    local = values["on"] not in ("kubernetes", "hosts") and not values["dry_run"] and planned is None
    with spawned_early(local) as early:
        return _run(values, words, early, planned)


def _run(values: dict[str, Any], words: list[str], early: Supervisor | None, planned: HostPlan | None) -> int:
    from torchnet.cli import multi_host
    from torchnet.cli.entry_point import say
    from torchnet.cli.node_count import first_line, is_one_process, is_single
    from torchnet.cli.torchrun_compat import SETS_FIELD, as_fields, from_variables, run_id, variable, warnings
    from torchnet.config.resolution import resolve
    from torchnet.config.script_check import reads_script_from_stdin
    from torchnet.config.settings import BY_PATH
    from torchnet.runtime import runtime_of, working_directory

    form = output_format(values["form"], bool(values["dry_run"]))
    typed = given_fields(values)
    variables = from_variables(values, typed, os.environ)
    mapped = as_fields(values)
    flags = variables | mapped | typed
    if words:
        flags |= {"script": words[0], "args": tuple(words[1:])}
    cwd = working_directory()
    shown = {path: flag for path, flag in SETS_FIELD.items() if path not in typed}
    shown |= {
        path: variable(SETS_FIELD.get(path, BY_PATH[path].flag))
        for path in variables
        if path not in typed | mapped
    }

    def resolve_with(more: Mapping[str, Any], more_shown: Mapping[str, str]) -> Resolved:
        given = {**flags, **more}
        defaults: dict[str, object] = {}

        def attempt() -> Resolved:
            origins = {**shown, **more_shown}
            return resolve(given, os.environ, cwd, values["config"], shown=origins, defaults=defaults)

        found = attempt()
        if is_single(values, typed, found, os.environ):
            defaults["nnodes"] = 1
            found = attempt()
        script_on_stdin = reads_script_from_stdin(found.job) and found.job.nproc_per_node is None
        if script_on_stdin or is_one_process(found):
            defaults["nproc_per_node"] = 1  # whatever GPUs there are: only one process can read a script
            found = attempt()
        if found.job.run_id is None and (name := run_id(found.job)):
            given["run_id"] = name
            found = attempt()
        return found

    resolved = multi_host.resolved(planned, resolve_with, "launch")
    first = "" if values["dry_run"] else multi_host.notice(resolved.job) or first_line(resolved, os.environ)
    for line in (
        *filter(None, [first]),
        *name_conflicts(),
        *warnings(values, typed, resolved, os.environ),
        *resolved.warnings,
    ):
        say(f"torchnet: {line}")
    if values["dry_run"]:
        return dry_run(resolved, cwd, form)
    runtime = runtime_of(resolved.job, early)
    runtime.validate(resolved.job, cwd)
    return runtime.launch(resolved.job, cwd)


def dry_run(resolved: Resolved, cwd: str, form: str) -> int:
    """Print the job (on Kubernetes: its objects) in ``form``, and return the exit code."""
    from torchnet.cli.entry_point import emit, say
    from torchnet.runtime import runtime_of

    text, warnings = runtime_of(resolved.job).dry_run(resolved, cwd, form)
    for line in warnings:
        say(f"torchnet: {line}")
    emit(text)
    return 0


def output_format(value: str | None, dry_run: bool) -> str:
    """Return the output format of a dry run, the value of -o or "yaml".

    Raises:
        UsageError: The format is unknown, or -o is given without --dry-run.
    """
    if value is not None and not dry_run:
        raise UsageError("-o requires --dry-run", fix="add --dry-run, or remove -o")
    if value not in (None, *FORMATS):
        raise UsageError(f"-o {value!r} is not an output format; valid: {', '.join(FORMATS)}")
    return value or "yaml"
