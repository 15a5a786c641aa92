"""``torchnet agent``: what runs inside each worker. Not for people, so it is left out of the help."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the hidden command; its arguments are the agent's own."""
    app.command(
        "agent",
        hidden=True,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )(_agent)


def _agent(context: typer.Context, arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    def act() -> int:
        from torchnet.agent.command import main

        return int(main(arguments or []))

    context.obj.action = act
