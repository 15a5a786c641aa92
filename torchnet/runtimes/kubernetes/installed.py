"""What ``torchnet verify`` looks at before it tries anything: nodes, Multus, Whereabouts, the attachment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from torchnet.network.text import listed, printable
from torchnet.runtimes.kubernetes.create import missing
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.refused import Refused
from torchnet.runtimes.kubernetes.resources import DAEMONSET, NAD, NODE, POD

SYSTEM = "kube-system"
_OLDEST_CNI = (0, 3, 1)  # older ones give an interface, and no network-status entry


@dataclass(frozen=True)
class Check:
    """One line of the answer; ``fix`` is the next command where it failed."""

    name: str
    good: bool
    evidence: str
    fix: str = ""


def ready_nodes(door: Door) -> list[str]:
    """Nodes that take pods: Ready, not cordoned, and without a taint that keeps ordinary pods away."""
    answer = door.call("GET", NODE.path(""), NODE.call("list", ""))
    found = []
    for node in answer.get("items") or ():
        spec, conditions = node.get("spec") or {}, (node.get("status") or {}).get("conditions") or ()
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        tainted = any(one.get("effect") in ("NoSchedule", "NoExecute") for one in spec.get("taints") or ())
        if ready and not spec.get("unschedulable") and not tainted:
            found.append(str(node["metadata"]["name"]))
    return sorted(found)


def some(nodes: Sequence[str]) -> Check:
    if not nodes:
        return Check("nodes", False, "no node is Ready and takes pods", "kubectl get nodes")
    return Check("nodes", True, f"{listed(nodes, limit=8)}: Ready")


def plugin(door: Door, title: str, app: str, nodes: Sequence[str]) -> Check:
    query = {"labelSelector": f"app={app}"}
    fix = f"torchnet manifests {app} | kubectl apply -f -"
    sets = (
        door.call("GET", DAEMONSET.path(SYSTEM), DAEMONSET.call("list", SYSTEM), query=query).get("items")
        or ()
    )
    if not sets:
        return Check(title, False, f"no DaemonSet with app={app} in {SYSTEM}", fix)
    for one in sets:
        status, name = one.get("status") or {}, one["metadata"]["name"]
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        if ready < wanted:
            evidence = f"DaemonSet {name}: {ready} of {wanted} Ready"
            return Check(title, False, evidence, f"kubectl describe pods -n {SYSTEM} -l app={app}")
    pods = door.call("GET", POD.path(SYSTEM), POD.call("list", SYSTEM), query=query).get("items") or ()
    running = {
        str((one.get("spec") or {}).get("nodeName"))
        for one in pods
        if (one.get("status") or {}).get("phase") == "Running"
    }
    without = [node for node in nodes if node not in running]
    if without:
        fix = f"kubectl get pods -n {SYSTEM} -l app={app} -o wide"
        return Check(title, False, f"not running on {listed(without, limit=8)}", fix)
    return Check(title, True, f"Running on {len(nodes)} of {len(nodes)} nodes")


def attachment(door: Door, network: tuple[str, str]) -> Check:
    namespace, name = network
    title = f"attachment {namespace}/{name}"
    try:
        found = door.call("GET", NAD.path(namespace, name), NAD.call("get", namespace, name))
    except Refused as error:
        if error.status != 404:
            raise
        absent = missing(door, namespace, name)
        return Check(title, False, absent.text, absent.fix)
    return configuration(title, str((found.get("spec") or {}).get("config") or ""))


def configuration(title: str, text: str) -> Check:
    """Whether an attachment's configuration is one that gives an interface and an entry in network-status (pure)."""
    fix = "torchnet manifests backend-network | kubectl apply -f -"
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError):
        return Check(title, False, "its configuration is no JSON object", fix)
    version = str(config.get("cniVersion") or "")
    parts = version.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts) or tuple(map(int, parts)) < _OLDEST_CNI:
        evidence = f"cniVersion is {version!r}: below 0.3.1 Multus writes no network-status"
        return Check(title, False, printable(evidence, 200), 'add "cniVersion": "1.0.0" to its configuration')
    plugins = config.get("plugins")
    main = plugins[0] if isinstance(plugins, list) and plugins and isinstance(plugins[0], dict) else config
    kind = str(main.get("type") or "")
    if not kind:
        return Check(title, False, "its configuration has no type: no plugin would make the interface", fix)
    ipam = main.get("ipam")
    words = [f"{kind} on {main['master']}" if main.get("master") else kind]
    words += [f"addresses by {ipam.get('type')}"] if isinstance(ipam, dict) else []
    return Check(title, True, printable(", ".join([*words, f"cniVersion {version}"]), 200))
