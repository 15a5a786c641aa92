"""``torchnet attach [RUN]``: follow a run that was started with --detach, or whose launcher has exited."""

from __future__ import annotations

from typing import Any

import typer

from torchnet.cli.cluster_options import add, place, ranks_of, run_of

HELP = """\
Follow a run to its end, print its receipt, and exit with its exit code.

Ctrl-C detaches; the run continues. torchnet attach does not remove the run: use torchnet down RUN.
RUN may be omitted if the namespace has only one run.
"""


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
            "json_path",
            str,
            typer.Option(
                None, "--json", metavar="FILE", help="Write the receipt as JSON to this file; - is stdout."
            ),
        ),
        ("quiet", bool, typer.Option(None, "--quiet", help="Print neither progress nor the receipt.")),
    ]
    add(app, "attach", run, about=HELP, short="Follow a run on a cluster to its end.", options=options)


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
