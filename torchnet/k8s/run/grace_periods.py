"""Pods that are being deleted: when their grace periods end, and which of them no kubelet will end.

A later deletion shortens the grace period that the API reports, but not a termination that the kubelet has begun
(SyncTerminatingPod in kubelet.go, kubernetes#113606). The grace period that counts is therefore the first one seen.

A deletion with grace period 0 removes a pod from the API while its processes may still run and hold GPUs and
addresses. It is therefore used only for pods whose node is gone or whose condition Ready is Unknown.
The kubelet itself reports False, for example while its container runtime hangs, and still ends its pods. On such a
node, on a Ready one, or if nodes cannot be read, only the kubelet ends a pod.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import NODE, POD
from torchnet.k8s.run.worker_set import seconds
from torchnet.text import printable

# Whereabouts watches the API: it frees the address of a pod that is deleted with grace period 0 although the pod may
# still use it, and a pod of the next run then fails duplicate address detection. Before a forced deletion, the node
# therefore gets this many seconds beyond the pod's grace period.
SILENT_SECONDS = 12.0


class GracePeriods:
    """The grace periods of the pods of one removal, measured by the server's clock.

    The server's clock and this machine's may differ. Every response carries the server's date, and every time stamp in
    an object is a lower bound of the server's time; from there on, this machine's monotonic clock counts. So a pod that
    was deleted long ago is not waited for again, and no pod is waited for longer than its grace period and a margin
    from when it was first seen.
    """

    def __init__(self, clock_offset: Callable[[], float] = lambda: float("-inf")) -> None:
        """Create an empty record.

        Args:
            clock_offset: returns the server's unix time minus this machine's monotonic time, as of its last response.
        """
        self._response_offset = clock_offset
        self._versions: dict[str, str] = {}  # by UID
        self._over: dict[str, float] = {}  # by pod UID: end of the grace period, the server's unix time
        self._clock_offset = float("-inf")  # lower bound of the server's unix time minus our monotonic time
        self.longest = 0.0
        """The longest grace period among the pods, in seconds."""

    def record(self, meta: Mapping[str, Any]) -> None:
        """Record the current metadata of an object; costs little if they are as they were."""
        state = str(meta.get("uid")), str(meta.get("resourceVersion"))
        if "None" not in state and self._versions.get(state[0]) == state[1]:
            return
        self._versions[state[0]] = state[1]
        now = time.monotonic()
        fields = [field.get("time") for field in meta.get("managedFields") or ()]
        stamps = [seconds(stamp) for stamp in (meta.get("creationTimestamp"), *fields)]
        over = seconds(meta.get("deletionTimestamp"))
        if over:
            grace = float(meta.get("deletionGracePeriodSeconds") or 0)
            self.longest = max(self.longest, grace)
            self._over.setdefault(str(meta["uid"]), over)
            stamps.append(over - grace)  # deletionTimestamp may lie ahead: it is the end of the grace period
        self._clock_offset = max(
            self._clock_offset, *(stamp - now for stamp in stamps if stamp), float("-inf")
        )

    def is_overdue(self, meta: Mapping[str, Any]) -> bool:
        """Whether this pod's grace period ended so long ago that its kubelet should have removed it."""
        over = self._over.get(str(meta["uid"]))
        clock_offset = max(self._clock_offset, self._response_offset())
        return over is not None and clock_offset + time.monotonic() > over + SILENT_SECONDS


# Between two reads of a node, which may be lost meanwhile; of several nodes, each waits for its turn.
_AGAIN_SECONDS = 2.0
_LONGEST = 300  # characters of a condition


class TerminatingPods:
    """The pods of one removal that still exist after their grace period."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._nodes: dict[str, str] = {}  # node name by pod UID
        self._kept: dict[str, tuple[float, str]] = {}  # by node: when it was read, and why its pods stay
        self._problems: dict[str, str] = {}  # by pod name

    def is_abandoned(self, meta: Mapping[str, Any]) -> bool:
        """Whether this pod's node is gone or has lost its kubelet, so that nothing ends the pod.

        Raises:
            ClusterError: the API server cannot be reached.
        """
        if not meta.get("deletionGracePeriodSeconds"):
            return False  # the kubelet has ended it, or a deletion was forced already: a finalizer keeps it
        name, uid = str(meta["name"]), str(meta["uid"])
        if uid not in self._nodes:
            self._nodes[uid] = self._node_of(name)
        node = self._nodes[uid]
        why = self._why_kept(node) if node else ""
        self._problems.pop(name, None)
        if why:
            self._problems[name] = (
                f"pods/{name}: the kubelet on node {node} has not terminated it, and {why}. Its processes may still "
                "be running. Check the node, then: "
                f"kubectl delete pod {name} -n {self._namespace} --grace-period=0 --force"
            )
        return bool(node) and not why

    def problems(self, left: Sequence[str]) -> list[str]:
        """A line for each pod in ``left`` (PLURAL/NAME) that only its kubelet may end."""
        return [text for name, text in self._problems.items() if f"{POD.plural}/{name}" in left]

    def _node_of(self, name: str) -> str:
        """The name of the pod's node; "" if the pod has none, is gone, or cannot be read."""
        path, call = POD.path(self._namespace, name), POD.call("get", self._namespace, name)
        try:
            return str(self._client.call("GET", path, call)["spec"].get("nodeName") or "")
        except ApiRefusal as error:
            if error.status not in (403, 404):
                raise
            return ""

    def _why_kept(self, node: str) -> str:
        """Why this node's pods stay; "" if the node is gone or has lost its kubelet."""
        at, why = self._kept.get(node, (float("-inf"), ""))
        if time.monotonic() > at + _AGAIN_SECONDS * max(1, len(self._kept)):
            at, why = self._kept[node] = time.monotonic(), self._read(node)
        return why

    def _read(self, node: str) -> str:
        call = NODE.call("get", "", node)
        try:
            found = self._client.call("GET", NODE.path("", node), call)
        except ApiRefusal as error:
            if error.status == 404:
                return ""
            if error.status != 403:
                raise
            return f"the node cannot be read ({call.question})"
        conditions = (found.get("status") or {}).get("conditions") or ()
        ready: Mapping[str, Any] = next((one for one in conditions if one["type"] == "Ready"), {})
        if ready.get("status") == "Unknown":
            return ""
        if ready.get("status") == "True":
            return "the node is Ready"
        why = printable(
            ": ".join(str(ready[key]) for key in ("reason", "message") if ready.get(key)), _LONGEST
        )
        return f"the kubelet reports the node as not Ready ({why or 'no reason given'})"
