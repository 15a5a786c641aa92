"""The removal of a run when its launcher ends; what is left is named, with the command that removes it."""

from __future__ import annotations

from functools import partial

from torchnet.console.console import Console
from torchnet.errors import TorchnetError
from torchnet.k8s.client.access import Access
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.client.watch import own_error
from torchnet.k8s.run.deletion import Removal, remove
from torchnet.k8s.run.interruptible import Interrupted, ThreadCall, in_thread
from torchnet.signals import Signals
from torchnet.text import listed

_REMOVAL_SECONDS = 30.0  # beyond the pods' own time, until objects that do not go are named
_BRIEF_SECONDS = 0.8
_SIGNAL_SECONDS = 5.0  # after a signal, for the calls that are under way
_LEAVE_SECONDS = 0.5  # the same after a second one
_LAST_SECONDS = 0.3  # for a removal that was told to end to say what is left
_PROBLEMS = 5  # that are told


def clear(
    access: Access,
    namespace: str,
    run: str,
    console: Console,
    signals: Signals,
    *,
    now: bool = False,
    brief: bool = False,
) -> bool:
    """Remove everything of a run; a signal ends the waiting, and leaves what is there: it is being deleted. After
    two signals it is only begun.

    With ``now`` the pods get a second for their end; with ``brief`` a server that does not answer gets no second try.
    Whether nothing is left. What cannot be removed is told, and raises nothing: how the job
    ended is not to be lost for it.
    """
    given = {"patience": 0.0, "timeout": _BRIEF_SECONDS} if brief else {}
    door = ApiClient(access, **given)  # whatever else has been told to stop, this has not
    action = partial(remove, door, namespace, run, patience=_REMOVAL_SECONDS, now=now, force=True)
    removal: Removal | None
    try:
        try:
            if signals.count > 1:
                call = ThreadCall(action)
                call.wait(_LEAVE_SECONDS)
                door.stop.set()
                call.wait(_LAST_SECONDS)
                return tell(console, call.result(), namespace, run)
            removal = in_thread(
                action,
                signals,
                patience=lambda: _LEAVE_SECONDS if signals.count > 1 else _SIGNAL_SECONDS,
                on_signal=door.stop.set,
                silence=access.silence,
            )
        except Interrupted as error:
            removal = error.call.result()
    except TorchnetError as error:
        removal = Removal(problems=[str(error)])
    except Exception as error:
        removal = Removal(problems=[str(own_error("it", error))])
    return tell(console, removal, namespace, run)


def tell(console: Console, removal: Removal | None, namespace: str, run: str) -> bool:
    """Name what is left; None is a removal that has not ended. Whether there is nothing to name."""
    lines = ["it was left before its end"] if removal is None else removal.problems[:_PROBLEMS]
    if removal is not None and removal.left:
        lines.append(f"still there: {listed(removal.left, limit=10)}")
    if lines:
        text = "\n".join([f"the removal of {run}:", *lines, f"fix: torchnet down {run} -n {namespace}"])
        console.notice(text, "warning")
    return not lines
