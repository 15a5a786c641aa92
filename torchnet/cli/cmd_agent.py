"""``torchnet agent``: the process that runs in each worker. Hidden from the help, since users rarely start it."""

from __future__ import annotations

import typer

from torchnet.cli.typer_parameters import RawCommand


def register(app: typer.Typer) -> None:
    """Add the hidden command; the agent parses its arguments."""
    app.command("agent", cls=RawCommand, hidden=True, add_help_option=False)(_agent)


def _agent(context: typer.Context) -> None:
    arguments = list(context.args)

    def act() -> int:
        from torchnet.agent.command_line import main

        return int(main(arguments))

    context.obj.action = act
