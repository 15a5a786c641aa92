"""``torchnet status [RUN]``: list the runs of a namespace, or show one run with its workers."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli.cluster_options import add, place, run_of
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.k8s.run.listing import RunRow

FORMATS = ("table", "json")
HEADINGS = ("RUN", "WORKLOAD", "READY", "STATE", "AGE", "EXIT CODE")
WORKER_HEADINGS = ("WORKER", "POD", "NODE", "STATE", "EXIT CODE")
HELP = "Show the runs in a namespace with their ready workers, state, reason, age and exit code; with RUN, its workers."


def register(app: typer.Typer) -> None:
    """Add the command."""
    form = typer.Option(None, "-o", metavar="|".join(FORMATS), help="Output format. [table]")
    add(app, "status", run, about=HELP, short="Show the runs in a namespace.", options=[("form", str, form)])


def run(words: list[str], given: dict[str, Any]) -> int:
    """Print the runs, and return the exit code."""
    from torchnet.cli.entry_point import emit, say
    from torchnet.k8s.commands import status
    from torchnet.k8s.run.listing import as_json

    form = given.get("form", FORMATS[0])
    if form not in FORMATS:
        raise UsageError(f"invalid output format {form!r}; valid: {', '.join(FORMATS)}")
    name = run_of(words)
    answer = status(place(given), name)
    rows = answer.rows
    if form == "json":
        emit(json.dumps([as_json(row) for row in rows], indent=2) + "\n")
    elif not rows:
        emit("no readable runs found\n" if answer.remark else "no runs found\n")
    else:
        emit(_table(rows))
    if answer.remark:
        say(f"torchnet: warning: {answer.remark}")
    return 0


def _state(row: RunRow) -> str:
    attempt = f" (attempt {row.attempt})" if row.attempt is not None and row.attempt > 1 else ""
    return f"{row.state}{attempt}: {row.reason}" if row.reason else f"{row.state}{attempt}"


def _table(rows: list[RunRow]) -> str:
    from torchnet.console.text_table import table
    from torchnet.units import seconds

    width = shutil.get_terminal_size((160, 24)).columns
    text = table(
        HEADINGS,
        [
            (
                row.run,
                row.workload,
                f"{row.ready}/{row.total}",
                _state(row),
                seconds(row.age_s),
                "" if row.exit_code is None else str(row.exit_code),
            )
            for row in rows
        ],
        width,
    )
    workers = [one for row in rows for one in row.workers]
    if workers:
        cells = [
            (
                one["worker"],
                one["pod"],
                one["node"],
                f"{one['state']}: {one['reason']}" if one["reason"] else one["state"],
                "" if one["exit_code"] is None else str(one["exit_code"]),
            )
            for one in workers
        ]
        text += "\n" + table(WORKER_HEADINGS, cells, width)
    return text
