"""Why test pods do not start yet, from their status and Events (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torchnet.errors import NetworkError
from torchnet.k8s.run.worker_set import WorkerStatus, seconds
from torchnet.k8s.verify.pod_report import NO_PYTHON
from torchnet.text import printable

Object = Mapping[str, Any]
# The kubelet's Events about an image, in the order of a pull. Failed and BackOff end one try.
_IMAGE = ("Pulling", "Pulled", "Failed", "BackOff")
# Multus's own requests, as cmdErr in pkg/multus/multus.go writes their errors. Those of the plugins that it calls, such
# as Whereabouts, have no "Multus: " before the pod.
_REJECTED = re.compile(r"Multus: \[[^\]]*\]: [^\[]*\bUnauthorized\b")


def of_pod(events: Iterable[Object], uid: str) -> list[Object]:
    """Return the Events about the pod with this UID: an earlier pod may have had its name."""
    return [one for one in events if str((one.get("involvedObject") or {}).get("uid") or "") == uid]


def is_pulling(events: Iterable[Object]) -> bool:
    """Whether the kubelet is pulling an image for a pod, according to the Events about it."""
    newest, reason = 0.0, ""
    for event in events:
        if event.get("reason") not in _IMAGE:
            continue
        at = _time(event)
        # Time stamps are in seconds: of two Events at the same time, the later step counts.
        if (at, _IMAGE.index(event["reason"])) >= (newest, _IMAGE.index(reason) if reason else -1):
            newest, reason = at, str(event["reason"])
    return reason == "Pulling"


def has_clock_stopped(one: WorkerStatus, events: Iterable[Object]) -> bool:
    """Whether the pod waits for something that its time-out does not count: a queue, or the pull of its image."""
    return one.stage == "queued" or (one.stage == "creating" and not one.failing and is_pulling(events))


def find_rejected_token(events: Iterable[Object]) -> bool:
    """Whether the API server has rejected the token of Multus on the pod's node."""
    return any(
        event.get("reason") == "FailedCreatePodSandBox" and _REJECTED.search(str(event.get("message") or ""))
        for event in events
    )


def rejected_token_error(node: str, multus: str) -> NetworkError:
    """Return the error for a node on which the API server rejects the token of Multus.

    Args:
        multus: Multus's DaemonSet, as kubectl's arguments.
    """
    text = f"the API server rejects the token of Multus on {printable(node, 80)} (Unauthorized)"
    return NetworkError(f"{text}: no new pod starts there", fix=f"kubectl rollout restart {multus}")


def not_started_error(name: str, stage: str, limit: float, why: str, namespace: str) -> NetworkError:
    """Return the error for a pod that has not reached a stage in time.

    Args:
        limit: Seconds that it had.
        why: The newest reason in its status or its Events.
    """
    fix = f"kubectl get events -n {namespace}; check the node's /opt/cni/bin and its network card"
    if "Image" in why or "Pulling" in why:
        fix = NO_PYTHON
    elif why.startswith("unscheduled: "):
        fix = "kubectl describe nodes; --toleration and --node-selector select other nodes"
    return NetworkError(f"{name} is not {stage} after {limit:g} s: {printable(why, 500)}", fix=fix)


def _time(event: Object) -> float:
    stamps = (event.get("lastTimestamp"), event.get("eventTime"))
    created = (event.get("metadata") or {}).get("creationTimestamp")
    return seconds(next((str(stamp) for stamp in (*stamps, created) if stamp), None))
