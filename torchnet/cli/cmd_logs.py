"""``torchnet logs [RUN]``: print the output of a run's workers."""

from __future__ import annotations

from typing import Any

import typer

from torchnet.cli.cluster_options import add, place, ranks_of, run_of

HELP = "Print the output of a run's workers, each line with its rank."


def register(app: typer.Typer) -> None:
    """Add the command."""
    options = [
        (
            "ranks",
            str,
            typer.Option(
                None, "--ranks", metavar="LIST", help="Show the output of these ranks only: 0,3 or 0-3."
            ),
        ),
        (
            "follow",
            bool,
            typer.Option(None, "--follow", "-f", help="Follow the output until the workers have ended."),
        ),
    ]
    add(app, "logs", run, about=HELP, short="Print the output of a run.", options=options)


def run(words: list[str], given: dict[str, Any]) -> int:
    """Print the output, and return the exit code."""
    from torchnet.k8s.commands import logs

    return logs(place(given), run_of(words), ranks=ranks_of(given), follow=bool(given.get("follow")))
