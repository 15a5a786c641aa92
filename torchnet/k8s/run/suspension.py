"""Suspended workloads, and pods that a queue evicts (pure).

A queue such as Kueue, or a user, sets ``spec.suspend`` of a Job or a JobSet. The Job controller then deletes the
running pods, with their grace period, and creates new ones with the same indexes when the workload is resumed. Plain
pods have no such field: Kueue sets the condition TerminationTarget on each pod of a group that it evicts, and deletes
the pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torchnet.constants import QUEUE_LABEL
from torchnet.k8s.run.worker_set import seconds
from torchnet.text import printable

Object = Mapping[str, Any]
_LONGEST = 300  # characters of a condition's message
_OWN_WORDS = ("", "Job suspended", "jobset is suspended")  # messages of the controllers that give no reason
_EVICTED = "TerminationTarget"  # a condition that Kueue's pod controller sets


@dataclass(frozen=True)
class Suspension:
    """The suspension of a workload; ``queue`` and ``message`` are "" if there are none."""

    active: bool = False
    queue: str = ""
    message: str = ""
    resumed: float = 0.0
    """Unix time of the last resumption; 0.0 if there was none."""

    @property
    def state(self) -> str:
        """The state of a run whose workload is suspended, as ``torchnet status`` shows it."""
        return "queued" if self.queue else "suspended"

    def reason(self, kind: str) -> str:
        """What the run waits for."""
        until = f"its queue {self.queue} admits it" if self.queue else "its spec.suspend is set to false"
        return f"the {kind} is suspended until {until}" + (f" ({self.message})" if self.message else "")

    def ended(self, pod: Object, *, gone: bool) -> bool:
        """Whether this pod belongs to an attempt that a suspension has ended.

        The time of its deletion decides, not that of its creation: the Job controller creates the next attempt's pods
        before it records the resumption.

        Args:
            gone: the pod no longer exists.
        """
        meta = pod["metadata"]
        over = seconds(meta.get("deletionTimestamp"))
        if not over and not gone:
            return False
        if self.active:
            return True
        if over:
            return over - float(meta.get("deletionGracePeriodSeconds") or 0) <= self.resumed
        # A pod that was deleted while no watch ran has no known deletion time. If it had started before the
        # resumption, it is one of an earlier attempt.
        return 0 < _started(pod) < self.resumed


def suspension(workload: Object | None) -> Suspension:
    """Read the suspension of a Job or a JobSet; any other object, and None, has none."""
    meta, spec = (workload or {}).get("metadata") or {}, (workload or {}).get("spec") or {}
    conditions = ((workload or {}).get("status") or {}).get("conditions") or ()
    condition: Object = next((one for one in conditions if one.get("type") == "Suspended"), {})
    message = printable(" ".join(str(condition.get("message") or "").split()), _LONGEST)
    resumed = seconds(condition.get("lastTransitionTime")) if condition.get("status") == "False" else 0.0
    # The controller records a resumption in the condition, later than in spec.suspend: until then its time is unknown.
    suspended = bool(spec.get("suspend")) or condition.get("status") == "True"
    active = suspended and not terminal(workload or {})
    return Suspension(
        active,
        queue=printable(str((meta.get("labels") or {}).get(QUEUE_LABEL) or ""), _LONGEST),
        message=message if active and message not in _OWN_WORDS else "",
        resumed=resumed,
    )


def terminal(workload: Object) -> bool:
    """Whether a Job or a JobSet has completed or failed."""
    conditions = (workload.get("status") or {}).get("conditions") or ()
    return any(
        one.get("type") in ("Complete", "Completed", "Failed") and one.get("status") == "True"
        for one in conditions
    )


def evicted(pods: Iterable[Object]) -> str:
    """Why Kueue has evicted a group of plain pods; "" if it has not."""
    for pod in pods:
        conditions = (pod.get("status") or {}).get("conditions") or ()
        for one in conditions:
            if one.get("type") == _EVICTED and one.get("status") == "True":
                reason = ": ".join(str(one[key]) for key in ("reason", "message") if one.get(key))
                return printable(" ".join(reason.split()), _LONGEST) or "no reason given"
    return ""


def _started(pod: Object) -> float:
    """Unix time at which the pod's first container started, as far as it is known; 0.0 if none is known to have."""
    status = pod.get("status") or {}
    states = [
        state
        for field in ("initContainerStatuses", "containerStatuses")
        for one in status.get(field) or ()
        for state in (one.get("state") or {}).values()
    ]
    return min((at for state in states if (at := seconds(state.get("startedAt")))), default=0.0)
