"""``torchnet logs [RUN]``: print the output of a run's workers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import typer

from torchnet.cli.cluster_options import add, place, ranks_of, run_of
from torchnet.constants import PREPARE, WORKER
from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.k8s.run.pod_logs import LogExtent

CONTAINERS = (PREPARE, WORKER)
HELP = """\
Print the output of a run's workers, each line with its rank.

Of the workers' preparation (discovery), rank 0's is printed, and those that failed; -c prepare
prints every worker's.
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
            "follow",
            bool,
            typer.Option(None, "--follow", "-f", help="Follow the output until the workers have ended."),
        ),
        (
            "tail",
            str,
            typer.Option(None, "--tail", metavar="N", help="Start with the last N lines of each log. [all]"),
        ),
        (
            "since",
            str,
            typer.Option(
                None,
                "--since",
                metavar="TIME",
                help="Start with the lines of the last TIME: 10s, 5min, 1h. [all]",
            ),
        ),
        (
            "container",
            str,
            typer.Option(
                None,
                "--container",
                "-c",
                metavar="|".join(CONTAINERS),
                help="Read only this container's logs.",
            ),
        ),
    ]
    add(app, "logs", run, about=HELP, short="Print the output of a run.", options=options)


def run(words: list[str], given: dict[str, Any]) -> int:
    """Print the output, and return the exit code."""
    from torchnet.k8s.commands import logs

    container = given.get("container", "")
    if container not in ("", *CONTAINERS):
        raise UsageError(
            f"-c {container!r} is not a container of torchnet; valid: {', '.join(CONTAINERS)}",
            fix="for another one: kubectl logs POD -c NAME",
        )
    name, ranks, extent = run_of(words), ranks_of(given), _extent(given)
    follow = bool(given.get("follow"))
    return logs(place(given), name, ranks=ranks, follow=follow, extent=extent, container=container)


def _extent(given: dict[str, Any]) -> LogExtent:
    """Return what --tail and --since select.

    Raises:
        UsageError: A value is invalid.
    """
    from torchnet.config.parsing import parse_duration, parse_whole, quote
    from torchnet.k8s.run.pod_logs import LogExtent

    tail = since = None
    try:
        if "tail" in given:
            tail = parse_whole(given["tail"])
            if tail < -1:
                raise ValueError("is below 0")
    except ValueError as error:
        raise UsageError(f"--tail {quote(given['tail'])} {error}", fix="--tail 100") from None
    try:
        if "since" in given:
            since = math.ceil(parse_duration(given["since"]))
            if not since:
                raise ValueError("is not above 0")
    except ValueError as error:
        raise UsageError(f"--since {quote(given['since'])} {error}", fix="--since 5min") from None
    return LogExtent(None if tail == -1 else tail, since)  # -1 is all of them, as for kubectl
