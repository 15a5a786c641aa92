"""Pods that are still terminating long after their grace period, and whether their nodes can end them.

Deletion with grace period 0 takes a pod out of the API while its processes may still run, with their GPUs and their
addresses, which others then get. So it is for pods whose node is gone or not Ready. On a Ready node, and where nodes
may not be read, the kubelet alone ends a pod.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.refused import Refused
from torchnet.runtimes.kubernetes.resources import NODE, POD

_AGAIN_SECONDS = 2.0  # until a node is read again: it may become NotReady meanwhile


class Terminating:
    """The pods of one removal that have not ended in time."""

    def __init__(self, door: Door, namespace: str) -> None:
        self._door, self._namespace = door, namespace
        self._nodes: dict[str, str] = {}  # by the pod's UID
        self._kept: dict[str, tuple[float, str]] = {}  # by node: when it was read, and why its pods stay
        self._problems: dict[str, str] = {}  # by pod

    def abandoned(self, meta: Mapping[str, Any]) -> bool:
        """Whether this pod's node is gone or not Ready, so that no kubelet ends it.

        Raises:
            ClusterError: the API server cannot be reached.
        """
        if not meta.get("deletionGracePeriodSeconds"):
            return False  # the kubelet has ended it, or it was deleted by force: a finalizer holds it
        name, uid = str(meta["name"]), str(meta["uid"])
        if uid not in self._nodes:
            self._nodes[uid] = self._node_of(name)
        node = self._nodes[uid]
        why = self._why_kept(node) if node else ""
        self._problems.pop(name, None)
        if why:
            self._problems[name] = (
                f"pods/{name}: the kubelet on node {node} has not ended it yet, and {why}; its processes may still "
                f"run. After checking the node: kubectl delete pod {name} -n {self._namespace} --grace-period=0 --force"
            )
        return bool(node) and not why

    def problems(self, left: Sequence[str]) -> list[str]:
        """A line for each pod of ``left`` (KIND/NAME) that only its kubelet ends."""
        return [text for name, text in self._problems.items() if f"{POD.plural}/{name}" in left]

    def _node_of(self, name: str) -> str:
        """The pod's node; "" where it has none, is gone, or may not be read."""
        path, call = POD.path(self._namespace, name), POD.call("get", self._namespace, name)
        try:
            return str(self._door.call("GET", path, call)["spec"].get("nodeName") or "")
        except Refused as error:
            if error.status not in (403, 404):
                raise
            return ""

    def _why_kept(self, node: str) -> str:
        """Why this node's pods stay; "" where it is gone or not Ready."""
        at, why = self._kept.get(node, (float("-inf"), ""))
        if time.monotonic() > at + _AGAIN_SECONDS:
            at, why = self._kept[node] = time.monotonic(), self._read(node)
        return why

    def _read(self, node: str) -> str:
        call = NODE.call("get", "", node)
        try:
            found = self._door.call("GET", NODE.path("", node), call)
        except Refused as error:
            if error.status == 404:
                return ""
            if error.status != 403:
                raise
            return f"the node may not be read ({call.question})"
        conditions = (found.get("status") or {}).get("conditions") or ()
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return "the node is Ready" if ready else ""
