"""What is left of a run when its launcher goes: nothing, or a word on what it is and how it can be removed."""

from __future__ import annotations

from functools import partial

from torchnet.errors import ClusterError
from torchnet.network.text import listed
from torchnet.runtimes.kubernetes.configuration import Access
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.interruptible import Interrupted, in_thread
from torchnet.runtimes.kubernetes.remove import Removal, remove
from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.ui.console import Console

_REMOVAL_SECONDS = 30.0  # beyond the pods' own time, until objects that do not go are named
_PROBLEMS = 5  # that are told


def clear(
    access: Access,
    namespace: str,
    run: str,
    console: Console,
    signals: Signals,
    *,
    now: bool = False,
) -> None:
    """Remove everything of a run; a signal ends the pods that are still there at once, the next one leaves them.

    With ``now`` they are ended at once in any case. What cannot be removed is told, and raises nothing: how the job
    ended is not to be lost for it.
    """
    removal: Removal | None = None
    for at_once in (True,) if now else (False, True):
        door = Door(access)  # whatever else has been told to stop, this has not
        try:
            removal = in_thread(
                partial(_removed, door, namespace, run, at_once), signals, on_signal=door.stop.set
            )
            break
        except Interrupted as error:
            removal = error.call.result()
            if removal is not None and not removal.left and not removal.problems:
                break
    tell(console, removal, namespace, run)


def tell(console: Console, removal: Removal | None, namespace: str, run: str) -> None:
    """Name what is left; None is a removal that has not ended."""
    lines = ["it was left before its end"] if removal is None else removal.problems[:_PROBLEMS]
    if removal is not None and removal.left:
        lines.append(f"still there: {listed(removal.left, limit=10)}")
    if lines:
        text = "\n".join([f"the removal of {run}:", *lines, f"fix: torchnet down {run} -n {namespace}"])
        console.event({"event": "notice", "node": None, "level": "warning", "text": text})


def _removed(door: Door, namespace: str, run: str, now: bool) -> Removal:
    try:
        return remove(door, namespace, run, patience=_REMOVAL_SECONDS, now=now, force=True)
    except ClusterError as error:
        return Removal(problems=[str(error)])
