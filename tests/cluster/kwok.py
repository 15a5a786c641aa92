"""KWOK: nodes and pods that exist in the API alone. No test needs it; it is built and started for benchmarks.scale.

Three processes, because KWOK's kubelet never ends the stream of a log that is followed: it knows no container that has
ended. ``logs`` alone is killed and started again, as the end of a container would end its streams.
"""

from __future__ import annotations

import inspect
import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster import daemons, golang, pki
from tests.cluster import versions as v
from tests.cluster.control_plane import PREFIX, kubectl
from tests.cluster.parts import Part, locked
from tests.cluster.places import CP_ADDRESS, RUN
from tests.cluster.shell import wait_until

Json = dict[str, Any]
API = "kwok.x-k8s.io/v1alpha1"
USER = "kwok"  # its name in the API server's audit log
SELECTOR = "type=kwok"  # of its nodes
PODS, LOGS, END = "kwok-pods", "kwok-logs", "kwok-end"
_PORT = 10247
_LEASE_SECONDS = 8  # as the other nodes': the controller manager waits no longer for a silent node
_ROOM = {"cpu": "1k", "memory": "10Ti", "ephemeral-storage": "100Ti", "pods": "10k"}


def _kwok(folder: Path) -> None:
    source = golang.module_folder(v.KWOK_MODULE, v.KWOK_VERSION)
    golang.build_module(source, "./cmd/kwok", folder / "kwok")


PART = Part("kwok", "\n".join([v.KWOK_VERSION, inspect.getsource(golang.build_module)]), _kwok)


def build() -> None:
    """Build it unless it is there: some 3 minutes."""
    if not PART.built:
        with locked():
            PART.build()


def stage(name: str, conditions: Mapping[str, str | Sequence[str]], following: Json) -> Json:
    """What becomes of pods that meet ``conditions``: a jq path -> ``Exists``, ``DoesNotExist``, or its values."""
    expressions: list[Json] = [
        {"key": path, "operator": value} if isinstance(value, str)
        else {"key": path, "operator": "In", "values": list(value)}
        for path, value in conditions.items()
    ]  # fmt: skip
    spec = {"resourceRef": {"apiGroup": "v1", "kind": "Pod"}, "next": following}
    return _document("Stage", name, {**spec, "selector": {"matchExpressions": expressions}})


def logs(files: Mapping[str, Path]) -> Json:
    """The logs of all pods: container -> the file, whose lines have the format of the CRI."""
    found = [{"containers": [name], "logsFile": str(path)} for name, path in files.items()]
    return _document("ClusterLogs", "logs", {"logs": found})


def start(name: str, documents: Sequence[Json]) -> None:
    """Start the process ``name``, which is one of the three, with this configuration."""
    if not (RUN / f"{USER}.kubeconfig").exists():
        pki.certificate(USER, f"/O=system:masters/CN={USER}")
        pki.kubeconfig(USER, RUN / f"{USER}.kubeconfig")
    options = {"podPlayStageParallelism": 16}
    kind = {"apiVersion": "config.kwok.x-k8s.io/v1alpha1", "kind": "KwokConfiguration", "options": options}
    settings = RUN / f"{name}.yaml"
    settings.write_text("\n---\n".join(json.dumps(one) for one in (kind, *documents)))
    flags = [f"--kubeconfig={RUN / f'{USER}.kubeconfig'}", f"--config={settings}"]
    flags += [f"--node-ip={CP_ADDRESS}", f"--node-port={_PORT}", "--cidr=10.200.0.1/16"]
    managed = "type=none" if name == LOGS else SELECTOR
    flags += ["--manage-all-nodes=false", f"--manage-nodes-with-label-selector={managed}"]
    # One process alone holds the leases; without a lease of its own, another one would leave the pods alone.
    flags += [f"--node-lease-duration-seconds={_LEASE_SECONDS if name == PODS else 0}"]
    if name == LOGS:
        # The API server trusts its own certificate there, too.
        flags += [f"--tls-cert-file={pki.PKI / 'apiserver.crt'}"]
        flags += [f"--tls-private-key-file={pki.PKI / 'apiserver.key'}"]
    else:
        flags += [f"--server-address=127.0.0.1:{_PORT + (1 if name == PODS else 2)}"]
    daemons.start(name, *PREFIX, PART.folder / "kwok", *flags)


def stop(name: str) -> None:
    """Kill the process, which ends all streams of its pods' logs."""
    daemons.stop(name, signal.SIGKILL)


def add_nodes(count: int) -> None:
    """Nodes with room for any number of pods, which only those that tolerate the taint get to."""
    items = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"kwok{number}", "labels": dict([SELECTOR.split("=")])},
            "spec": {"taints": [{"key": "kwok", "effect": "NoSchedule"}]},
            "status": {"allocatable": _ROOM, "capacity": _ROOM},
        }
        for number in range(count)
    ]
    kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    words = ("wait", "--for=condition=Ready", "node", "-l", SELECTOR, "--timeout=5s")
    wait_until("KWOK's nodes", 60, lambda: bool(kubectl(*words)))


def _document(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
