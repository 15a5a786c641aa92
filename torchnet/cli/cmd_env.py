"""``torchnet env``: explain the environment variables of a script, or print those of this worker.

``eval "$(torchnet env)"`` takes the flags of ``torchnet agent``; torchnet.agent.env_command implements it.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchnet.cli.entry_point import emit
from torchnet.cli.typer_parameters import PlainCommand
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.network.env_vars import Variable

FORMATS = ("table", "json")
EXPLAIN = "Show each variable with its value, reason and source."
HEADINGS = ("VARIABLE", "VALUE", "WHY", "IF YOU SET IT", "SOURCE")


HELP = """Show the environment variables that torchnet sets for a script.

In a pod, or with the flags of `torchnet agent`, and without --explain: print them as shell commands for another
launcher: eval "$(torchnet env)"."""
_OWN = ("--explain", "-o", "--help", "-h")
_PLACE = ("KUBERNETES_SERVICE_HOST", "TORCHNET_ADDRESS_SOURCE")  # either is set in a worker


class _Command(PlainCommand):
    """Parses the command's own options; all other command lines are passed to the agent unparsed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = not args or any(word.startswith(_OWN) for word in args)
        super().parse_args(ctx, args if own else [])
        if not own:
            ctx.args = list(args)
        return list(ctx.args)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("env", cls=_Command, help=HELP)(_env)


def _env(
    context: typer.Context,
    explain: Annotated[bool, typer.Option("--explain", help=EXPLAIN)] = False,
    form: Annotated[
        str, typer.Option("-o", metavar="|".join(FORMATS), help="Output format of --explain.")
    ] = FORMATS[0],
) -> None:
    context.obj.action = partial(run, explain, form, tuple(context.args))


def run(explain: bool, form: str, arguments: tuple[str, ...]) -> int:
    """Print the table or this worker's environment, and return the exit code."""
    if form not in FORMATS:
        raise UsageError(f"invalid output format {form!r}; valid: {', '.join(FORMATS)}")
    if not explain and (arguments or any(os.environ.get(name) for name in _PLACE)):
        from torchnet.agent.env_command import main

        return int(main(arguments))
    if not explain:
        from torchnet.agent.env_command import FAILS

        emit(FAILS)
        raise UsageError(
            "not in a worker of a job, so there is no environment to print",
            fix="torchnet env --explain shows the variables of every worker",
        )
    from torchnet.network.env_vars import explain as explained

    variables = explained()
    if form == "json":
        emit(json.dumps([asdict(variable) for variable in variables], indent=2) + "\n")
        return 0
    from torchnet.console.text_table import table

    # A pipe has no width: use 160 columns there. COLUMNS overrides both that and the terminal's width.
    width = shutil.get_terminal_size((160, 24)).columns
    emit(table(HEADINGS, [_row(variable) for variable in variables], width))
    return 0


def _row(variable: Variable) -> tuple[str, str, str, str, str]:
    effect = "replaced" if variable.owned else f"kept; {variable.consequence}".rstrip("; ")
    return (variable.name, variable.value, variable.reason, effect, variable.source)
