"""Create a run's objects on the cluster; after an error or a signal, remove them again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torchnet.console.console import Console
from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError
from torchnet.k8s.client.access import TOLD_SECONDS, ResponseMonitor
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.client.api_errors import ApiUnreachable
from torchnet.k8s.client.kinds import WORKLOADS, kind_of
from torchnet.k8s.client.watch import own_error
from torchnet.k8s.run import creation
from torchnet.k8s.run.deletion import clear, those
from torchnet.k8s.run.interruptible import Interrupted, ThreadCall, ask, in_thread
from torchnet.k8s.run.run_info import RunInfo, facts
from torchnet.network.attachment import NetworkAttachment
from torchnet.signals import Signals

_LATE_SECONDS = 10.0  # for the response to the last request

Object = dict[str, Any]


def start(
    door: ApiClient,
    rendered: Sequence[Object],
    pod: Object,
    attachments: Sequence[NetworkAttachment],
    console: Console,
    signals: Signals,
    said: Callable[[str], None],
) -> RunInfo | int:
    """Check and create a run's objects. After a signal or an error, the created objects are removed again.

    Args:
        pod: one pod of the workload, for the check.
        attachments: those of the pods, for the check.
        said: receives a defect in setting the owner references, later and from another thread.

    Returns:
        The run, or the exit code after a signal.

    Raises:
        UsageError: a run of this name, or an object of one, exists already.
        NetworkError: a network attachment that the pods name does not exist.
        ClusterError: the server rejects an object, or cannot be reached.
        Left: a signal came before anything was created.
    """
    silence = door.access.silence
    ask(lambda: creation.check(door, rendered, pod, attachments), signals, "nothing was made", door=door)
    made: list[Object] = []
    silent = False

    def stop() -> None:
        nonlocal silent
        silent = silence.seconds >= TOLD_SECONDS
        door.stop.set()
        if not silent:
            console.notice("stopping: what was made is removed (once more ends it at once)", "warning")

    try:
        results = in_thread(
            lambda: creation.create(door, rendered, made.append, door.stop.is_set),
            signals,
            on_signal=stop,
            silence=silence,
        )
    except Interrupted as error:
        name = signal.Signals(error.number).name
        ended = error.call.wait(0)
        left = _names(made)
        if not ended and not error.again and not silent:
            # The server has responded so far. The last request may still create an object, which has to be removed,
            # too: its response is waited for.
            left = [] if not _removed(door, made, signals) else left
            ended = _answered(error.call, signals, silence)
        if not ended:
            _untold(name, rendered, left, console)
        elif _undo(door, rendered, made, error.call.error, console, signals, brief=True):
            console.notice(f"stopped by {name}: nothing is left of what was made", "warning")
        return 128 + error.number
    except Exception as error:
        _undo(door, rendered, made, error, console, signals)
        raise
    # In the background: the pods start meanwhile, and the run's label finds all objects even without owners.
    threading.Thread(target=_own, args=(door, results, said), name="owner", daemon=True).start()
    return facts(next(body for body in results if kind_of(body) in WORKLOADS))


def _answered(call: ThreadCall, signals: Signals, silence: ResponseMonitor) -> bool:
    """Wait up to 10 s for the responses to all requests; return whether they have come.

    Nothing is removed by label before that: the last response may be that the name, and so the label, is another run's.
    """
    try:
        return bool(in_thread(lambda: call.wait(_LATE_SECONDS), signals, patience=0.0, silence=silence))
    except Interrupted:
        return call.wait(0)


def _undo(
    door: ApiClient,
    rendered: Sequence[Object],
    made: Sequence[Object],
    error: BaseException | None,
    console: Console,
    signals: Signals,
    *,
    brief: bool = False,
) -> bool:
    """Remove the run, even if no object is known to exist: a lost response may have been a success.

    With ``brief``, requests to a server that did not respond before are not retried.

    Returns:
        Whether nothing is left.
    """
    meta = rendered[0]["metadata"]
    ours = any(kind_of(one) in WORKLOADS for one in made)
    if (error is None and ours) or (error is not None and not creation.is_taken(error)):
        brief = brief and isinstance(error, ApiUnreachable)
        run = meta["labels"][RUN_LABEL]
        return clear(door.access, meta["namespace"], run, console, signals, now=True, brief=brief)
    # The name, and with it every object with the label, belongs or may belong to another run, except for ``made``.
    problems = _removed(door, made, signals)
    if problems:
        text = f"made here and not removed: {', '.join(_names(made))}"
        console.notice("\n".join([text, *problems]), "warning")
    return not problems


def _removed(door: ApiClient, made: Sequence[Object], signals: Signals) -> list[str]:
    """Remove exactly these objects; return why that could not be done."""
    other = ApiClient(door.access)  # a new client: the stop event of ``door`` may be set
    action = partial(those, other, made)
    try:
        removal = in_thread(action, signals, on_signal=other.stop.set, silence=door.access.silence)
        return list(removal.problems)
    except Interrupted as error:
        return ["it was left before its end"] if error.call.error or not error.call.wait(0) else []
    except ClusterError as error:
        return [str(error)]


def _untold(name: str, rendered: Sequence[Object], left: Sequence[str], console: Console) -> None:
    """Report what may be left if the last response never came."""
    meta = rendered[0]["metadata"]
    run, where = meta["labels"][RUN_LABEL], f"-n {meta['namespace']}"
    text = f"stopped by {name}: the cluster has not said whether all that was asked for of {run} was made"
    known = f"\nmade and not removed: {', '.join(left)}" if left else ""
    fix = f"torchnet status {run} {where}; where it is this launch's: torchnet down {run} {where}"
    console.notice(f"{text}{known}\nfix: {fix}", "warning")


def _names(made: Sequence[Object]) -> list[str]:
    return [f"{one['kind']} {one['metadata']['name']}" for one in made]


def _own(door: ApiClient, results: Sequence[Object], said: Callable[[str], None]) -> None:
    try:
        creation.own(door, results)
    except ClusterError:
        pass  # the run's label finds all objects even without owners
    except Exception as error:
        said(str(own_error("making the workload the owner of the run's other objects", error)))
