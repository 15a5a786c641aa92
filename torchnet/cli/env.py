"""``torchnet env``: the variables that a worker's script sees, and why each is what it is."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import typer

from torchnet.errors import UsageError

FORMATS = ("table", "json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("env", help="Show the environment of a worker's script.")(_env)


def _env(
    context: typer.Context,
    explain: bool = typer.Option(
        False, "--explain", help="Each variable with an example, its reason and source."
    ),
    output: str = typer.Option("table", "-o", metavar="|".join(FORMATS), help="Form of the output."),
) -> None:
    context.obj.action = partial(run, explain, output)


def run(explain: bool, output: str) -> int:
    """Print the table; the exit code."""
    if output not in FORMATS:
        raise UsageError(f"-o {output!r} is not a form of the table; valid: {', '.join(FORMATS)}")
    if not explain:
        raise UsageError(
            "this is no worker, so there is no environment to show",
            fix="torchnet env --explain shows the table with examples",
        )
    from torchnet.network.environment import explain as table

    rows = [_row(variable) for variable in table()]
    sys.stdout.write(json.dumps(rows, indent=2) + "\n" if output == "json" else _table(rows))
    return 0


def _row(variable: Any) -> dict[str, str]:
    return {name: str(text) for name, text in asdict(variable).items()}


def _table(rows: list[dict[str, str]]) -> str:
    return "\n".join(f"{r['name']}={r['value']}\n    {r['reason']} [{r['source']}]" for r in rows) + "\n"
