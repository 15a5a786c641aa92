"""A run's objects made on the cluster; where that fails, or a signal comes, nothing of them is left."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from torchnet.errors import ClusterError
from torchnet.runtimes.kubernetes import create
from torchnet.runtimes.kubernetes.clearing import clear, tell
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.facts import Facts, facts
from torchnet.runtimes.kubernetes.interruptible import Interrupted, in_thread
from torchnet.runtimes.kubernetes.remove import Removal, those
from torchnet.runtimes.kubernetes.resources import RUN, WORKLOADS, kind_of
from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.ui.console import Console

_LATE_SECONDS = 10.0  # for the answer to what was asked for last

Object = dict[str, Any]


def start(
    door: Door, rendered: Sequence[Object], pod: Object, console: Console, signals: Signals
) -> Facts | int:
    """Check and create; the run, or an exit code where a signal came. What was made is removed then, as after an error.

    Raises:
        UsageError, NetworkError, ClusterError: as `torchnet.runtimes.kubernetes.create` has it.
    """
    try:
        in_thread(lambda: create.check(door, rendered, pod), signals, on_signal=door.stop.set)
    except Interrupted as error:
        return 128 + error.number
    made: list[Object] = []
    try:
        results = in_thread(
            lambda: create.create(door, rendered, made.append, door.stop.is_set),
            signals,
            on_signal=door.stop.set,
        )
    except Interrupted as error:
        under_way = not error.call.wait(0)
        _undo(door, rendered, made, error.call.error, console, signals)
        if under_way:
            # What was asked for last may have been made after all that was there had been looked at.
            if error.call.wait(_LATE_SECONDS):
                _undo(door, rendered, made, error.call.error, console, signals)
            else:
                meta = rendered[0]["metadata"]
                tell(console, None, meta["namespace"], meta["labels"][RUN])
        return 128 + error.number
    except Exception as error:
        _undo(door, rendered, made, error, console, signals)
        raise
    # Not waited for: the pods are on their way, and the run's label finds everything without it, too.
    threading.Thread(target=_own, args=(door, results), name="owner", daemon=True).start()
    return facts(next(body for body in results if kind_of(body) in WORKLOADS))


def _undo(
    door: Door,
    rendered: Sequence[Object],
    made: Sequence[Object],
    error: BaseException | None,
    console: Console,
    signals: Signals,
) -> None:
    """Remove the run, also where nothing is known to be made: an answer that was lost may have been a success."""
    meta = rendered[0]["metadata"]
    namespace, run = meta["namespace"], meta["labels"][RUN]
    if error is None or not create.is_taken(error):
        clear(door.access, namespace, run, console, signals, now=True)
        return
    # The name is another's, and so is all that bears its label, but for what was made here.
    try:
        removal = those(Door(door.access), made)
    except ClusterError as problem:
        removal = Removal(problems=[str(problem)])
    if removal.problems:
        names = ", ".join(f"{one['kind']} {one['metadata']['name']}" for one in made)
        text = "\n".join([f"made beside the other run and not removed: {names}", *removal.problems])
        console.event({"event": "notice", "node": None, "level": "warning", "text": text})


def _own(door: Door, results: Sequence[Object]) -> None:
    try:
        create.own(door, results)
    except ClusterError:
        pass  # the run's label finds everything without it, too
