"""``torchnet launch [FLAGS] SCRIPT [ARGS…]``: resolve the job, then show it or run it."""

from __future__ import annotations

import inspect
import os
import sys
from functools import partial
from typing import Any

import typer

from torchnet.cli.options import GroupedCommand, field_parameters, given_fields
from torchnet.errors import UsageError

FORMATS = ("yaml", "json")
HELP = """\
Run SCRIPT on many workers, so that its collectives travel over the backend network.

Everything after SCRIPT belongs to the script. Each flag can also be set as TORCHNET_FLAG in the environment,
in a job file (--config), in torchnet.toml or under [tool.torchnet] in pyproject.toml; --dry-run shows where
each value came from. torchrun's flags are understood, with - and with _.
"""


def register(app: typer.Typer) -> None:
    """Add the command, its options made from the table of fields."""
    app.command(
        "launch",
        cls=GroupedCommand,
        help=HELP,
        short_help="Run a script on many workers.",
        options_metavar="[FLAGS]",
        context_settings={
            # What follows the script is the script's, be it --help or a flag of ours.
            "allow_interspersed_args": False,
            "token_normalize_func": _dashes,
        },
    )(_command())


def _dashes(name: str) -> str:
    """torchrun's flags are written with - and with _; the help shows the one, and both are taken."""
    return name.replace("_", "-")


def _command() -> Any:
    def launch(context: typer.Context, **values: Any) -> None:
        context.obj.action = partial(run, values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    own: dict[str, tuple[Any, Any]] = {
        "script": (str | None, typer.Argument(None, metavar="SCRIPT", show_default=False)),
        "arguments": (list[str] | None, typer.Argument(None, metavar="ARGS", show_default=False)),
        "config": (
            str | None,
            typer.Option(
                None, "--config", metavar="FILE", help="Job file (TOML); its paths are relative to it."
            ),
        ),
        "dry_run": (bool, typer.Option(False, "--dry-run", help="Show the resolved job, and run nothing.")),
        "output": (
            str | None,
            typer.Option(None, "-o", metavar="|".join(FORMATS), help="Form of the dry run. [yaml]"),
        ),
    }
    signature = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, (kind, default) in own.items()
        ),
        *field_parameters(),
    ]
    launch.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    launch.__annotations__ = {}
    return launch


def run(values: dict[str, Any]) -> int:
    """What the command does with typer's ``values``; the exit code."""
    from torchnet.cli.entry import say
    from torchnet.cli.torchrun import warnings
    from torchnet.spec.resolve import resolve

    form = _form(values["output"], values["dry_run"])
    flags = given_fields(values)
    if values["script"] is not None:
        flags |= {"script": values["script"], "args": tuple(values["arguments"] or ())}
    resolved = resolve(flags, os.environ, os.getcwd(), values["config"])
    for line in (*warnings(values), *resolved.warnings):
        say(f"torchnet: {line}")
    if values["dry_run"]:
        from torchnet.spec.show import as_json, as_yaml

        sys.stdout.write((as_json if form == "json" else as_yaml)(resolved.job, resolved.origins))
        return 0

    from torchnet.spec.script import check_script

    wrong = check_script(resolved.job, os.getcwd())
    if wrong:
        raise UsageError("\n  ".join(["the script cannot be run:", *wrong]), fix="torchnet launch --help")

    from torchnet.runtimes.local import launch

    return int(launch(resolved.job, resolved.origins))


def _form(asked: str | None, dry_run: bool) -> str:
    if asked is not None and not dry_run:
        raise UsageError("-o is the form of a dry run", fix="add --dry-run, or leave out -o")
    if asked not in (None, *FORMATS):
        raise UsageError(f"-o {asked!r} is not a form of the dry run; valid: {', '.join(FORMATS)}")
    return asked or "yaml"
