"""``torchnet attach [RUN]``: follow a run that was started with --detach, or whose launcher has exited."""

from __future__ import annotations

from typing import Any

import typer

from torchnet.cli.cluster_options import add, place, ranks_of, run_of

HELP = """\
Show the rest of a run, its receipt, and end with its exit code.

Ctrl-C leaves the run alone, and so does its end: torchnet down RUN removes it.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    options = [
        ("ranks", str, typer.Option(None, "--ranks", metavar="LIST", help="Show only these ranks' output.")),
        (
            "json_path",
            str,
            typer.Option(None, "--json", metavar="FILE", help="Write the receipt; - is stdout."),
        ),
        ("quiet", bool, typer.Option(None, "--quiet", help="Neither phases nor the receipt's table.")),
    ]
    add(app, "attach", run, about=HELP, short="Show the rest of a run on a cluster.", options=options)


def run(words: list[str], given: dict[str, Any]) -> int:
    """Attach to the run, and return its exit code."""
    from torchnet.k8s.commands import attach

    return attach(
        place(given),
        run_of(words),
        ranks=ranks_of(given),
        quiet=bool(given.get("quiet")),
        json_path=given.get("json_path"),
    )
