"""A run's objects made on the cluster; where that fails, or a signal comes, nothing of them is left."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from torchnet.errors import ClusterError
from torchnet.names import RUN_LABEL
from torchnet.runtimes.kubernetes import create
from torchnet.runtimes.kubernetes.clearing import clear
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.facts import Facts, facts
from torchnet.runtimes.kubernetes.interruptible import Call, Interrupted, in_thread
from torchnet.runtimes.kubernetes.remove import those
from torchnet.runtimes.kubernetes.resources import WORKLOADS, kind_of
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
        if _answered(door, made, error.call, signals):
            _undo(door, rendered, made, error.call.error, console, signals)
        else:
            _untold(rendered, console)
        return 128 + error.number
    except Exception as error:
        _undo(door, rendered, made, error, console, signals)
        raise
    # Not waited for: the pods are on their way, and the run's label finds everything without it, too.
    threading.Thread(target=_own, args=(door, results), name="owner", daemon=True).start()
    return facts(next(body for body in results if kind_of(body) in WORKLOADS))


def _answered(door: Door, made: Sequence[Object], call: Call, signals: Signals) -> bool:
    """Whether all that was asked for has been answered, in some seconds; what is known to be made goes at once.

    The last answer may be that the name is another's, and so is all that bears the label: nothing goes by that before.
    """
    if call.wait(0):
        return True
    _removed(door, made, signals)
    try:
        return bool(in_thread(lambda: call.wait(_LATE_SECONDS), signals, patience=0.0))
    except Interrupted:
        return call.wait(0)


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
    ours = any(kind_of(one) in WORKLOADS for one in made)
    if (error is None and ours) or (error is not None and not create.is_taken(error)):
        clear(door.access, meta["namespace"], meta["labels"][RUN_LABEL], console, signals, now=True)
        return
    # The name is another's, or may be, and so is all that bears its label, but for what was made here.
    problems = _removed(door, made, signals)
    if problems:
        names = ", ".join(f"{one['kind']} {one['metadata']['name']}" for one in made)
        console.notice("\n".join([f"made here and not removed: {names}", *problems]), "warning")


def _removed(door: Door, made: Sequence[Object], signals: Signals) -> list[str]:
    """Remove these very objects; why that cannot be done."""
    other = Door(door.access)  # whatever else has been told to stop, this has not
    try:
        return list(in_thread(lambda: those(other, made), signals, on_signal=other.stop.set).problems)
    except Interrupted as error:
        return ["it was left before its end"] if error.call.error or not error.call.wait(0) else []
    except ClusterError as error:
        return [str(error)]


def _untold(rendered: Sequence[Object], console: Console) -> None:
    """Name what may be left where the last answer never came."""
    meta = rendered[0]["metadata"]
    run, where = meta["labels"][RUN_LABEL], f"-n {meta['namespace']}"
    text = f"the cluster has not said whether all that was asked for of {run} was made"
    fix = f"torchnet status {run} {where}; where it is this launch's: torchnet down {run} {where}"
    console.notice(f"{text}\nfix: {fix}", "warning")


def _own(door: Door, results: Sequence[Object]) -> None:
    try:
        create.own(door, results)
    except ClusterError:
        pass  # the run's label finds everything without it, too
