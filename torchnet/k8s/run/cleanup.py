"""Remove a run at the launcher's end, and report on the console what could not be removed."""

from __future__ import annotations

from functools import partial

from torchnet.console.console import Console
from torchnet.errors import TorchnetError
from torchnet.k8s.client.access import Access
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.watch import internal_error
from torchnet.k8s.run.deletion import Removal, remove
from torchnet.k8s.run.interruptible import Interrupted, ThreadCall, in_thread
from torchnet.signals import Signals
from torchnet.text import listed

_REMOVAL_SECONDS = 30.0  # beyond the pods' grace periods, before objects that still exist are reported
_BRIEF_SECONDS = 0.8  # for each request of a brief removal
_SIGNAL_SECONDS = 5.0  # after a signal, for requests in flight
_LEAVE_SECONDS = 0.5  # the same after a second signal
_LAST_SECONDS = 0.3  # for an interrupted removal to report what is left
INTERRUPTED = "the clean-up was interrupted"
_PROBLEMS = 5  # how many problems are reported


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
    """Remove all objects of a run, and report on the console what could not be removed.

    A signal ends the wait; the objects that still exist are being deleted. After two signals, the removal is only
    begun. Problems are reported, not raised, so that they do not hide how the job ended.

    Args:
        now: use a grace period of 1 s.
        brief: do not retry a request that gets no response.

    Returns:
        Whether there was nothing to report.
    """
    client_options = {"patience": 0.0, "timeout": _BRIEF_SECONDS} if brief else {}
    client = ApiClient(access, **client_options)  # a new client: the caller's may have its stop event set
    action = partial(
        remove,
        client,
        namespace,
        run,
        patience=_REMOVAL_SECONDS,
        now=now,
        force=True,
        protects=lambda: signals.count < 2,  # else the user may leave before the workload is deleted
    )
    removal: Removal | None
    try:
        try:
            if signals.count > 1:
                call = ThreadCall(action)
                call.wait(_LEAVE_SECONDS)
                client.stop.set()
                call.wait(_LAST_SECONDS)
                return report(console, call.result(), namespace, run)
            removal = in_thread(
                action,
                signals,
                patience=lambda: _LEAVE_SECONDS if signals.count > 1 else _SIGNAL_SECONDS,
                on_signal=client.stop.set,
                silence=access.silence,
            )
        except Interrupted as error:
            removal = error.call.result()
    except TorchnetError as error:
        removal = Removal(problems=[str(error)])
    except Exception as error:
        removal = Removal(problems=[str(internal_error("the clean-up", error))])
    return report(console, removal, namespace, run)


def report(console: Console, removal: Removal | None, namespace: str, run: str) -> bool:
    """Report what a removal left; None stands for one that was interrupted.

    Returns:
        Whether there was nothing to report.
    """
    lines = [INTERRUPTED] if removal is None else removal.problems[:_PROBLEMS]
    if removal is not None and removal.left:
        lines.append(f"not deleted: {listed(removal.left, limit=10)}")
    if lines:
        text = "\n".join(
            [f"the clean-up of {run} is incomplete:", *lines, f"fix: torchnet down {run} -n {namespace}"]
        )
        console.notice(text, "warning")
    return not lines
