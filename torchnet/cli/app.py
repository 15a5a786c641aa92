"""The typer application, which only parses.

Each command stores its action in a `Choice`, and `parse` returns it, so that a command's errors do not pass through
typer's exception handling.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.main import get_command

from torchnet.cli import (
    cmd_agent,
    cmd_attach,
    cmd_bench,
    cmd_completion,
    cmd_down,
    cmd_env,
    cmd_launch,
    cmd_logs,
    cmd_manifests,
    cmd_network,
    cmd_receipt,
    cmd_status,
    cmd_verify,
)
from torchnet.cli.typer_parameters import PlainGroup
from torchnet_launch import name_conflicts


def version() -> str:
    """Return torchnet's version; "(not installed)" if it runs from a clone without installation."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("torchnet-launch")
    except PackageNotFoundError:
        return "(not installed)"


@dataclass
class Choice:
    """The action that the command line selects.

    Attributes:
        action: Runs the command and returns its exit code; None if typer only printed help or the version.
    """

    action: Callable[[], int] | None = None


app = typer.Typer(
    name="torchnet",
    cls=PlainGroup,
    help="Run PyTorch scripts on many workers over a backend network, and report which network carried the traffic.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,  # see cmd_completion
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
)


def _version(context: typer.Context, show: bool) -> None:
    if show and not context.resilient_parsing:
        typer.echo(f"torchnet {version()}")
        for line in name_conflicts():
            typer.echo(f"torchnet: {line}", err=True)
        raise typer.Exit


@app.callback()
def _torchnet(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for command in (
    cmd_launch,
    cmd_bench,
    cmd_status,
    cmd_logs,
    cmd_attach,
    cmd_down,
    cmd_env,
    cmd_manifests,
    cmd_network,
    cmd_verify,
    cmd_receipt,
    cmd_completion,
    cmd_agent,
):
    command.register(app)


def parse(argv: list[str]) -> Callable[[], int] | int:
    """Parse ``argv``.

    Returns:
        The action to run, or the exit code if typer has handled everything (help, version, a usage error).
    """
    choice = Choice()
    if cmd_completion.VARIABLE in os.environ:
        from typer.completion import completion_init

        completion_init()
    try:
        get_command(app).main(args=argv, prog_name="torchnet", obj=choice)
    except SystemExit as end:
        if choice.action is None:
            return end.code if isinstance(end.code, int) else 0
    assert choice.action is not None
    return choice.action
