"""Enforces the NetworkPolicies of the API server on the nodes, as the network plugins of other clusters do.

It watches policies, pods and namespaces, and gives each node the filter table of tests/cluster/policy_rules.py. The
nodes' bridges pass packets through iptables meanwhile, each in its node's own network namespace.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster import control_plane, nodes, policy_rules
from tests.cluster.cluster import Cluster
from tests.cluster.places import pod_range
from tests.cluster.shell import run, wait_until

KINDS = ("networkpolicies", "pods", "namespaces")
_BRIDGE = "/proc/sys/net/bridge/bridge-nf-call-iptables"
_SETTLE_SECONDS = 0.1  # changes come together
_EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"


class Enforcer:
    """The policies of the namespaces that are added are in force between `start` and `stop`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._enforced: dict[str, bool] = {}  # namespace -> whether new pods are held meanwhile
        self._objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = {kind: {} for kind in KINDS}
        self._applied: dict[str, str] = {}
        self._changed = threading.Condition()
        self._version = self._applied_version = 0
        self._stopped = False
        self._watches: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for node in self._cluster.nodes:
            self._cluster.on_node(node, "sh", "-c", f"echo 1 >{_BRIDGE}")
        for kind in KINDS:
            words = ("get", kind, "--all-namespaces", "--watch", "--output-watch-events", "-o", "json")
            command = [*control_plane.kubectl_command(), *words]
            watch = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
            self._watches.append(watch)
            self._threads.append(threading.Thread(target=self._follow, args=(kind, watch), daemon=True))
        self._threads.append(threading.Thread(target=self._apply_changes, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Everything is allowed again, and the bridges are as they were."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for watch in self._watches:
            watch.terminate()
            watch.wait()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        for watch in self._watches:
            assert watch.stdout is not None
            watch.stdout.close()
        for node in self._cluster.nodes:
            self._restore(node, _EMPTY)
            self._cluster.on_node(node, "sh", "-c", f"echo 0 >{_BRIDGE}")

    def add(self, namespace: str, *, holds: bool) -> None:
        self._change(lambda: self._enforced.update({namespace: holds}))

    def remove(self, namespace: str) -> bool:
        """Whether there are other namespaces left."""
        self._change(lambda: self._enforced.pop(namespace))
        return bool(self._enforced)

    def wait_for(self, namespace: str, *names: str, policy: str = "") -> None:
        """Until the tables in force have these pods of the namespace, and ``policy`` is known."""

        version: list[int] = []

        def there() -> bool:
            with self._changed:
                known = not policy or (namespace, policy) in self._objects["networkpolicies"]
                if known and not version:
                    version.append(self._version)
                text = "".join(self._applied.values())
                done = known and self._applied_version >= version[0]
            return done and all(f"--comment {namespace}/{name} " in text for name in names)

        wait_until(f"the policies of {namespace} to be in force", 30, there, 0.1)

    def _follow(self, kind: str, watch: subprocess.Popen[str]) -> None:
        assert watch.stdout is not None
        for line in watch.stdout:  # an event each; the last one may be cut off
            if line.endswith("\n"):
                self._take(kind, json.loads(line))

    def _take(self, kind: str, event: dict[str, Any]) -> None:
        found = event["object"]
        meta = found["metadata"]
        key = meta.get("namespace", ""), meta["name"]
        if event["type"] == "DELETED":
            self._change(lambda: self._objects[kind].pop(key, None))
        else:
            self._change(lambda: self._objects[kind].update({key: found}))

    def _change(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._version += 1
            self._changed.notify_all()

    def _apply_changes(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                self._changed.wait_for(lambda: self._stopped, _SETTLE_SECONDS)
                if self._stopped:
                    return
                tables = {node: self._table(node) for node in self._cluster.nodes}
                version = self._version
            for node, text in tables.items():
                if self._applied.get(node) != text:
                    self._restore(node, text)
            with self._changed:
                self._applied, self._applied_version = tables, version

    def _has_work(self) -> bool:
        known = self._objects["pods"] and self._objects["namespaces"]  # there are always some
        return self._stopped or (bool(known) and self._applied_version < self._version)

    def _table(self, node: str) -> str:
        pods = policy_rules.addresses([*self._objects["pods"].values()])
        namespaces = {
            name: one["metadata"].get("labels", {}) for (_, name), one in self._objects["namespaces"].items()
        }
        policies = [
            one
            for (where, _), one in sorted(self._objects["networkpolicies"].items())
            if where in self._enforced
        ]
        held = pod_range(node) if any(self._enforced.values()) else ""
        return policy_rules.table(node, pods, namespaces, policies, held)

    def _restore(self, node: str, text: str) -> None:
        run(*nodes.inside(node), "iptables-restore", input=text)


_lock = threading.Lock()
_running: Enforcer | None = None


@contextmanager
def enforced(cluster: Cluster, namespace: str, *, holds: bool = False) -> Iterator[Enforcer]:
    """The policies of ``namespace`` are enforced in this block; several blocks at a time share one enforcer.

    With ``holds``, a new pod, of whatever namespace, sends nothing until it is known here, as with plugins that give a
    pod its interface only when its policies are in force.
    """
    global _running
    with _lock:
        if _running is None:
            _running = Enforcer(cluster)
            _running.start()
        mine = _running
        mine.add(namespace, holds=holds)
    try:
        yield mine
    finally:
        with _lock:
            if not mine.remove(namespace):
                mine.stop()
                _running = None
