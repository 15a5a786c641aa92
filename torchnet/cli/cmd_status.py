"""``torchnet status [RUN]``: list the runs of a namespace, or show one run with its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli.cluster_options import add, place, run_of
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.k8s.run.listing import RunTable

FORMATS = ("table", "wide", "json", "yaml", "name")
HELP = """\
Show the runs in a namespace with their ready workers, state, reason, age and exit code; with RUN, its workers.

-o wide adds nodes, images and addresses. -o name prints the names that the other commands accept. With -w, json prints
one line for each change, and yaml one document.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    options = [
        (
            "everywhere",
            bool,
            typer.Option(None, "--all-namespaces", "-A", help="Show the runs in all namespaces."),
        ),
        (
            "labels",
            str,
            typer.Option(
                None,
                "--selector",
                "-l",
                metavar="SELECTOR",
                help="Show only runs with these labels: team=a,!test.",
            ),
        ),
        (
            "watch",
            bool,
            typer.Option(None, "--watch", "-w", help="Print each change until Ctrl-C."),
        ),
        (
            "form",
            str,
            typer.Option(None, "--output", "-o", metavar="|".join(FORMATS), help="Output format. [table]"),
        ),
    ]
    add(app, "status", run, about=HELP, short="Show the runs in a namespace.", options=options)


def run(words: list[str], given: dict[str, Any]) -> int:
    """Print the runs, and return the exit code."""
    from torchnet.cli.entry_point import emit, say
    from torchnet.cli.status_output import printer
    from torchnet.k8s.commands import follow_status, status

    form, labels = given.get("form", FORMATS[0]), given.get("labels", "")
    everywhere, watch = bool(given.get("everywhere")), bool(given.get("watch"))
    if form not in FORMATS:
        raise UsageError(f"invalid output format {form!r}; valid: {', '.join(FORMATS)}")
    name = run_of(words)
    if name is not None and (everywhere or labels):
        flag = "-A" if everywhere else "-l"
        raise UsageError(f"{flag} cannot be combined with RUN", fix=f"torchnet status {name} [-n NAMESPACE]")
    output = printer(form, everywhere=everywhere, watch=watch)
    remarks: set[str] = set()

    def show(table: RunTable) -> None:
        emit(output(table))
        if table.remark and table.remark not in remarks:
            remarks.add(table.remark)
            say(f"torchnet: warning: {table.remark}")

    if watch:
        return follow_status(place(given), name, show, labels=labels, everywhere=everywhere)
    show(status(place(given), name, labels=labels, everywhere=everywhere))
    return 0
