"""``torchnet launch --on kubernetes``: check, create, watch, tell how it ended, and leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from torchnet.errors import ClusterError, TorchnetError
from torchnet.network.text import listed
from torchnet.runtimes.kubernetes import create, remove
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.facts import Facts, facts
from torchnet.runtimes.kubernetes.interruptible import Interrupted, in_thread
from torchnet.runtimes.kubernetes.resources import WORKLOADS, kind_of
from torchnet.runtimes.kubernetes.session import Outcome, Session, Wishes
from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.ui.console import Console
from torchnet.ui.save import write_json

_REMOVAL_SECONDS = 30.0  # beyond the pods' grace, until objects that do not go are named
_STOPPED_SECONDS = 2.0  # for a reader who does not read, where the job was to end now

Object = dict[str, Any]


def start(
    door: Door, rendered: Sequence[Object], pod: Object, signals: Signals, *, keep: bool = False
) -> Facts | int:
    """Check and create; the run, or an exit code where a signal came. What was made is removed then, as after an error.

    Raises:
        UsageError, NetworkError, ClusterError: as `torchnet.runtimes.kubernetes.create` has it.
    """
    try:
        in_thread(lambda: create.check(door, rendered, pod), signals)
    except Interrupted as error:
        return 128 + error.number
    made: list[Object] = []
    try:
        results = in_thread(lambda: create.create(door, rendered, made.append), signals)
    except (Interrupted, TorchnetError) as error:
        if made and not keep:
            first = made[0]["metadata"]
            run = first["labels"]["torchnet/run"]
            removal = remove.remove(
                door, first["namespace"], run, patience=_REMOVAL_SECONDS, now=True, force=True
            )
            _tell(removal, run)
        if isinstance(error, Interrupted):
            return 128 + error.number
        raise
    # Not waited for: the pods are on their way, and the run's label finds everything without it, too.
    threading.Thread(target=_own, args=(door, results), name="owner", daemon=True).start()
    return facts(next(body for body in results if kind_of(body) in WORKLOADS))


def see(
    door: Door,
    known: Facts,
    console: Console,
    wishes: Wishes,
    signals: Signals,
    *,
    keep: bool,
    json_path: str | None,
) -> int:
    """Watch a run to its end (or until all have started), tell of it, and remove it unless ``keep``."""
    try:
        outcome = Session(door, known, console, wishes, signals).run()
    except ClusterError as error:
        console.close()
        raise ClusterError(
            f"{error.text}\n  the run {known.run} goes on",
            fix=f"torchnet attach {known.command}, or torchnet down {known.command}"
            + (f"; {error.fix}" if error.fix else ""),
        ) from None
    door.stop.set()
    if outcome.receipt is None:
        left(console, known, outcome)
        return outcome.code
    again = Door(door.access)  # the watch and the followers have been told to stop, this has not
    console.event({"event": "receipt", "receipt": outcome.receipt})
    failure = outcome.receipt["failure"]
    stopped = failure is not None and failure["kind"] in ("interrupted", "timeout")
    if wishes.stops and not keep:
        _clear(again, known, wishes, signals)
    elif not stopped:
        next_commands(console, known, ("logs", "down"))
    console.close(_STOPPED_SECONDS if stopped else None)
    if json_path:
        write_json(json_path, outcome.receipt)
    return outcome.code


def next_commands(console: Console, known: Facts, words: Sequence[str]) -> None:
    """The commands that go on with a run that is left."""
    commands = "\n".join(f"torchnet {word} {known.command}" for word in words)
    text = f"the run {known.run} is still there:\n{commands}"
    console.event({"event": "notice", "node": None, "level": "info", "text": text})


def left(console: Console, known: Facts, outcome: Outcome) -> None:
    """The launcher goes, the job does not."""
    commands = "\n".join(f"torchnet {word} {known.command}" for word in ("attach", "logs", "status", "down"))
    text = f"{known.run}: {outcome.left}; next:\n{commands}"
    console.event({"event": "notice", "node": None, "level": "info", "text": text})
    console.close()


def _clear(door: Door, known: Facts, wishes: Wishes, signals: Signals) -> None:
    """Remove everything; one more signal ends the pods that are still there at once."""
    stopper = threading.Event()
    result: list[remove.Removal] = []

    def work(now: bool) -> None:
        patience = wishes.grace + _REMOVAL_SECONDS
        result.append(
            remove.remove(
                door,
                known.namespace,
                known.run,
                patience=patience,
                now=now,
                force=True,
                alive=lambda: not stopper.is_set(),
            )
        )

    try:
        in_thread(lambda: work(False), signals)
    except Interrupted:
        stopper.set()
        work(True)
    if result:
        _tell(result[-1], known.command)


def _tell(removal: remove.Removal, run: str) -> None:
    import sys

    for line in removal.problems[:5]:
        sys.stderr.write(f"torchnet: {line}\n")
    if removal.left:
        what = listed(removal.left, limit=10)
        sys.stderr.write(f"torchnet: still there: {what}\n  fix: torchnet down {run}\n")


def _own(door: Door, results: Sequence[Object]) -> None:
    try:
        create.own(door, results)
    except ClusterError:
        pass  # the run's label finds everything without it, too
