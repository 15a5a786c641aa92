"""The typer application. It parses only: each command puts what is to be done into `Choice`, and `parse`
hands that back, so that no error of a command passes through typer's own handling of exceptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.main import get_command

from torchnet.cli import agent, attach, bench, down, env, launch, logs, manifests, status, verify
from torchnet.cli.options import PlainGroup


@dataclass
class Choice:
    """What the command line asks for; None while typer has only printed help or a version."""

    action: Callable[[], int] | None = None


app = typer.Typer(
    name="torchnet",
    cls=PlainGroup,
    help="Runs PyTorch scripts on many workers over the backend network, and proves what carried the bytes.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    # Its two options would bring pydantic in, and with it 0.1 s for every command.
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
)


def _version(asked: bool) -> None:
    if asked:
        from torchnet.cli.version import version

        typer.echo(f"torchnet {version()}")
        raise typer.Exit


@app.callback()
def _torchnet(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for command in (launch, bench, status, logs, attach, down, env, manifests, verify, agent):
    command.register(app)


def parse(argv: list[str]) -> Callable[[], int] | int:
    """The action that ``argv`` asks for, or an exit code where typer has said all there is to say."""
    choice = Choice()
    try:
        get_command(app).main(args=argv, prog_name="torchnet", obj=choice)
    except SystemExit as end:
        if choice.action is None:
            return end.code if isinstance(end.code, int) else 0
    assert choice.action is not None
    return choice.action
