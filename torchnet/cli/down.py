"""``torchnet down [RUN]``: stop a run, if it still runs, and remove everything that bears its label."""

from __future__ import annotations

from typing import Any

import typer

from torchnet.cli.places import add, place, run_of
from torchnet.errors import ClusterError

HELP = """\
Stop a run and remove everything that bears its label.

The workers get SIGTERM, and the time that the run gave them with --grace; with --now they are ended at once,
after 12 seconds even where their nodes say nothing.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    now = typer.Option(None, "--now", help="End the workers at once.")
    add(app, "down", run, about=HELP, short="Stop and remove a run.", options=[("now", bool, now)])


def run(words: list[str], given: dict[str, Any]) -> int:
    """Remove it; 0 when nothing is left."""
    from torchnet.cli.entry import say
    from torchnet.network.text import listed
    from torchnet.runtimes.kubernetes.commands import down

    name, removal = down(place(given), run_of(words), now=bool(given.get("now")))
    if removal.problems or removal.left:
        lines = [*dict.fromkeys(removal.problems)]
        if removal.left:
            lines.append(f"still there: {listed(removal.left, limit=10)}")
        raise ClusterError(
            "\n  ".join([f"the run {name} could not be removed whole:", *lines]), fix="torchnet down --now"
        )
    say(f"torchnet: {name}: nothing is left of it")
    return 0
