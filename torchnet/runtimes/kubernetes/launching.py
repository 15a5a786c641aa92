"""A run seen to its end: how it ended is told and kept, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

from torchnet.errors import ClusterError, TorchnetError
from torchnet.runtimes.kubernetes.clearing import clear
from torchnet.runtimes.kubernetes.closing import close
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.session import Session
from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.runtimes.kubernetes.wishes import Wishes
from torchnet.ui.console import Console
from torchnet.ui.measured import summed
from torchnet.ui.save import write_json


def see(
    door: Door,
    known: Facts,
    console: Console,
    wishes: Wishes,
    signals: Signals,
    *,
    json_path: str | None,
    told: SimpleQueue[str] | None = None,
) -> int:
    """Watch a run to its end (or until all have started), tell of it, and remove it where that is wished.

    A run that was to be detached stays, too, where it has ended by itself before that. ``told``: as Session has it.

    Raises:
        ClusterError: the cluster cannot be asked any more while the job goes on. A removal that fails is only told.
        TorchnetError: the same for a defect of torchnet's own.
    """
    try:
        outcome = Session(door, known, console, wishes, signals, told).run()
    except TorchnetError as error:
        close(console, signals)
        raise (ClusterError if isinstance(error, ClusterError) else TorchnetError)(
            f"{error.text}\n  the run {known.run} goes on",
            fix=f"torchnet attach {known.command}, or torchnet down {known.command}"
            + (f"; {error.fix}" if error.fix else ""),
        ) from None
    door.stop.set()
    if outcome.receipt is None:
        _next_commands(console, known, f"{known.run}: {outcome.left}; next", outcome.commands)
        close(console, signals)
        return outcome.code
    receipt = summed(outcome.receipt, asked=wishes.measure)
    console.event({"event": "receipt", "receipt": receipt})
    failure = receipt["failure"]
    stopped = failure is not None and failure["kind"] in ("interrupted", "timeout")
    detached = wishes.detach and not outcome.stopped
    removes = wishes.stops and not outcome.kept and not detached
    # Whether one that somebody else has stopped is still there, who only looks on does not know.
    if outcome.kept or (not removes and (detached or not stopped)):
        _next_commands(console, known, f"the run {known.run} is still there", ("logs", "down"))
    console.finish()
    # Before the removal, which can take long. On standard output it goes behind all that waits there.
    if json_path and json_path != "-":
        write_json(json_path, receipt)
    if removes:
        clear(door.access, known.namespace, known.run, console, signals)
    close(console, signals, stopped=stopped)
    if json_path == "-":
        write_json(json_path, receipt)
    return outcome.code


def _next_commands(console: Console, known: Facts, said: str, words: Sequence[str]) -> None:
    """The commands that go on with a run that is left."""
    commands = "\n".join(f"torchnet {word} {known.command}" for word in words)
    console.notice(f"{said}:\n{commands}")
