"""``torchnet down [RUN]``: stop a run if it is still running, and delete all objects with its label."""

from __future__ import annotations

import signal
from typing import Any

import typer

from torchnet.cli.cluster_options import add, place, run_of
from torchnet.errors import ClusterError

HELP = """\
Stop a run and delete all objects that have its label.

The workers get SIGTERM, and SIGKILL after the run's --grace, or after one second with --now. Pods that are already
terminating keep their grace period. Pods that remain 12 seconds after their grace period are force-deleted with
--now, but only if their node is gone, or lost its kubelet (Ready is Unknown). Elsewhere they remain, and torchnet
names them.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    now = typer.Option(None, "--now", help="Give the workers one second instead of --grace.")
    add(app, "down", run, about=HELP, short="Stop and delete a run.", options=[("now", bool, now)])


def run(words: list[str], given: dict[str, Any]) -> int:
    """Stop and delete the run.

    Returns:
        0 if nothing is left, or 128 + N if signal N interrupted the deletion.

    Raises:
        ClusterError: Objects of the run are left, or deleting failed.
    """
    from torchnet.cli.entry_point import say
    from torchnet.k8s.commands import down
    from torchnet.text import listed

    def on_terminating(count: int, seconds: float) -> None:
        pods = "1 pod is" if count == 1 else f"{count} pods are"
        say(f"torchnet: {pods} terminating already; waiting up to {seconds:g} s")

    done = down(place(given), run_of(words), now=bool(given.get("now")), on_terminating=on_terminating)
    removal, fix = done.removal, f"torchnet down {done.run} -n {done.namespace} --now"
    lines = list(dict.fromkeys(removal.problems)) if removal else ["the API server did not respond"]
    if removal and removal.left:
        lines.append(f"remaining: {listed(removal.left, limit=10)}")
    if done.number:
        name = signal.Signals(done.number).name
        say(
            "\n  ".join(
                [
                    f"torchnet: {done.run}: interrupted by {name} before all objects were deleted:",
                    *lines,
                    f"fix: {fix}",
                ]
            )
        )
        return 128 + done.number
    if lines:
        raise ClusterError(
            "\n  ".join([f"could not delete all objects of the run {done.run}:", *lines]), fix=fix
        )
    if removal and removal.unseen:
        kinds = listed(removal.unseen, limit=10)
        say(f"torchnet: {done.run}: deleted; not checked, because you may not list them: {kinds}")
    else:
        say(f"torchnet: {done.run}: deleted")
    return 0
