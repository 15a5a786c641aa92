"""``torchnet agent``: what runs inside each worker. Not for people, so it is left out of the help."""

from __future__ import annotations

import typer

from torchnet.cli.typer_parameters import RawCommand


def register(app: typer.Typer) -> None:
    """Add the hidden command; its arguments are the agent's own."""
    app.command("agent", cls=RawCommand, hidden=True, add_help_option=False)(_agent)


def _agent(context: typer.Context) -> None:
    arguments = list(context.args)

    def act() -> int:
        from torchnet.agent.command_line import main

        return int(main(arguments))

    context.obj.action = act
