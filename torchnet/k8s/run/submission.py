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
from torchnet.k8s.client.access import NOTICE_SECONDS, ResponseMonitor
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiUnreachable
from torchnet.k8s.client.kinds import WORKLOADS, kind_of
from torchnet.k8s.client.watch import internal_error
from torchnet.k8s.run import creation
from torchnet.k8s.run.cleanup import INTERRUPTED, clear
from torchnet.k8s.run.deletion import delete_objects
from torchnet.k8s.run.interruptible import Interrupted, ThreadCall, ask, in_thread
from torchnet.k8s.run.owner_references import set_owners
from torchnet.k8s.run.run_info import RunInfo, read_run_info
from torchnet.network.attachment import NetworkAttachment
from torchnet.signals import Signals

NOTHING_CREATED = "nothing was created"
_LATE_SECONDS = 10.0  # for the response to the last request

Object = dict[str, Any]


def start(
    client: ApiClient,
    rendered: Sequence[Object],
    pod: Object,
    attachments: Sequence[NetworkAttachment],
    console: Console,
    signals: Signals,
    warn: Callable[[str], None],
    nnodes: int = 1,
) -> RunInfo | int:
    """Check and create a run's objects. After a signal or an error, the created objects are removed again.

    Args:
        pod: one pod of the workload, for the check.
        attachments: those of the pods.
        warn: receives a defect in setting the owner references, later and from another thread.
        nnodes: how many pods the workload has.

    Returns:
        The run, or the exit code after a signal.

    Raises:
        UsageError: a run of this name, or an object of one, exists already.
        NetworkError: a network attachment that the pods name does not exist, or has too few addresses.
        ClusterError: the server rejects an object, or cannot be reached.
        Left: a signal came before anything was created.
    """
    silence = client.access.silence
    check = lambda: creation.check(client, rendered, pod, attachments, nnodes)  # noqa: E731
    for line in ask(check, signals, NOTHING_CREATED, client=client):
        console.notice(line)
    created: list[Object] = []
    silent = False

    def stop() -> None:
        nonlocal silent
        silent = silence.seconds >= NOTICE_SECONDS
        client.stop.set()
        if not silent:
            console.notice(
                "stopping: deleting what was created; press Ctrl-C again to exit at once", "warning"
            )

    try:
        results = in_thread(
            lambda: creation.create(client, rendered, created.append, client.stop.is_set),
            signals,
            on_signal=stop,
            silence=silence,
        )
    except Interrupted as error:
        name = signal.Signals(error.number).name
        ended = error.call.wait(0)
        remaining = _names(created)
        if not ended and not error.again and not silent:
            # The server has responded so far. The last request may still create an object, which has to be removed,
            # too: its response is waited for.
            remaining = [] if not _remove(client, created, signals) else remaining
            ended = _wait_for_responses(error.call, signals, silence)
        if not ended:
            _report_unconfirmed(name, rendered, remaining, console)
        elif _undo(client, rendered, created, error.call.error, console, signals, brief=True):
            console.notice(f"stopped by {name}: everything that was created has been deleted", "warning")
        return 128 + error.number
    except Exception as error:
        _undo(client, rendered, created, error, console, signals)
        raise
    # In the background: the pods start meanwhile, and the run's label finds all objects even without owners.
    threading.Thread(target=_set_owners, args=(client, results, warn), name="owner", daemon=True).start()
    return read_run_info(next(body for body in results if kind_of(body) in WORKLOADS))


def _wait_for_responses(call: ThreadCall, signals: Signals, silence: ResponseMonitor) -> bool:
    """Wait up to 10 s for the responses to all requests; return whether they have come.

    Nothing is removed by label before that: the last response may be that the name, and so the label, is another run's.
    """
    try:
        return bool(in_thread(lambda: call.wait(_LATE_SECONDS), signals, patience=0.0, silence=silence))
    except Interrupted:
        return call.wait(0)


def _undo(
    client: ApiClient,
    rendered: Sequence[Object],
    created: Sequence[Object],
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
    ours = any(kind_of(one) in WORKLOADS for one in created)
    if (error is None and ours) or (error is not None and not creation.is_taken(error)):
        brief = brief and isinstance(error, ApiUnreachable)
        run = meta["labels"][RUN_LABEL]
        return clear(client.access, meta["namespace"], run, console, signals, now=True, brief=brief)
    # The name, and with it every object with the label, belongs or may belong to another run, except for ``made``.
    problems = _remove(client, created, signals)
    if problems:
        text = f"not deleted: {', '.join(_names(created))}"
        console.notice("\n".join([text, *problems]), "warning")
    return not problems


def _remove(client: ApiClient, created: Sequence[Object], signals: Signals) -> list[str]:
    """Remove exactly these objects; return why that could not be done."""
    other = ApiClient(client.access)  # a new client: the stop event of ``client`` may be set
    action = partial(delete_objects, other, created)
    try:
        removal = in_thread(action, signals, on_signal=other.stop.set, silence=client.access.silence)
        return list(removal.problems)
    except Interrupted as error:
        if not error.call.wait(0):
            return [INTERRUPTED]
        return [str(error.call.error)] if error.call.error else list(error.call.result().problems)
    except ClusterError as error:
        return [str(error)]


def _report_unconfirmed(
    name: str, rendered: Sequence[Object], remaining: Sequence[str], console: Console
) -> None:
    """Report what may be left if the last response never came."""
    meta = rendered[0]["metadata"]
    run, where = meta["labels"][RUN_LABEL], f"-n {meta['namespace']}"
    text = f"stopped by {name}: the API server has not confirmed the creation of {run}"
    created_text = f"\nnot deleted: {', '.join(remaining)}" if remaining else ""
    fix = f"torchnet status {run} {where}; if this launch created it: torchnet down {run} {where}"
    console.notice(f"{text}{created_text}\nfix: {fix}", "warning")


def _names(created: Sequence[Object]) -> list[str]:
    return [f"{one['kind']} {one['metadata']['name']}" for one in created]


def _set_owners(client: ApiClient, results: Sequence[Object], warn: Callable[[str], None]) -> None:
    try:
        set_owners(client, results)
    except ClusterError:
        pass  # the run's label finds all objects even without owners
    except Exception as error:
        warn(str(internal_error("setting the owner references of the run's objects", error)))
