"""What ``torchnet verify`` looks at before it tries anything: nodes, Multus, Whereabouts, the attachment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.network.text import listed, printable
from torchnet.runtimes.kubernetes.create import missing
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.refused import Refused, is_rights
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
    """Whether a DaemonSet with this label runs on these nodes, in whatever namespace it was installed."""
    query = {"labelSelector": f"app={app}"}
    fix = f"torchnet manifests {app} | kubectl apply -f -"
    sets, where = _daemonsets(door, query)
    if not sets:
        return Check(title, False, f"no DaemonSet with app={app} in {where}", fix)
    for one in sets:
        status, meta = one.get("status") or {}, one["metadata"]
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        if ready < wanted:
            evidence = f"DaemonSet {meta['namespace']}/{meta['name']}: {ready} of {wanted} Ready"
            fix = f"kubectl describe pods -n {meta['namespace']} -l app={app}"
            return Check(title, False, evidence, fix)
    namespaces = sorted({str(one["metadata"]["namespace"]) for one in sets})
    pods = [
        item
        for namespace in namespaces
        for item in door.call("GET", POD.path(namespace), POD.call("list", namespace), query=query).get(
            "items"
        )
        or ()
    ]
    running = {
        str((one.get("spec") or {}).get("nodeName"))
        for one in pods
        if (one.get("status") or {}).get("phase") == "Running"
    }
    without = [node for node in nodes if node not in running]
    if without:
        fix = f"kubectl get pods -n {namespaces[0]} -l app={app} -o wide"
        return Check(title, False, f"not running on {listed(without, limit=8)}", fix)
    return Check(title, True, f"Running on {len(nodes)} of {len(nodes)} nodes")


def _daemonsets(door: Door, query: dict[str, str]) -> tuple[Sequence[dict[str, Any]], str]:
    """Those of the whole cluster, or of kube-system alone where no more may be looked at; and where that was."""
    try:
        found = door.call("GET", DAEMONSET.path(""), DAEMONSET.call("list", ""), query=query)
        where = "any namespace"
    except Refused as error:
        if not is_rights(error.status, error.said):
            raise
        found = door.call("GET", DAEMONSET.path(SYSTEM), DAEMONSET.call("list", SYSTEM), query=query)
        where = f"{SYSTEM} (other namespaces may not be looked into)"
    return found.get("items") or (), where


def attachment(door: Door, network: tuple[str, str]) -> tuple[Check, str]:
    """The check, and what gives the addresses (its ipam's type; "" where that is not known)."""
    namespace, name = network
    title = f"attachment {namespace}/{name}"
    try:
        found = door.call("GET", NAD.path(namespace, name), NAD.call("get", namespace, name))
    except Refused as error:
        if error.status != 404:
            raise
        absent = missing(door, namespace, name)
        return Check(title, False, absent.text, absent.fix), ""
    text = str((found.get("spec") or {}).get("config") or "")
    if not text:
        evidence = "no configuration of its own: Multus takes each node's file, which only a pod can try"
        return Check(title, True, evidence), ""
    return configuration(title, text), _addresses_by(text)


def _main(config: dict[str, Any]) -> dict[str, Any]:
    """The plugin that makes the interface."""
    plugins = config.get("plugins")
    first = plugins[0] if isinstance(plugins, list) and plugins else None
    return first if isinstance(first, dict) else config


def _addresses_by(text: str) -> str:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    ipam = _main(config).get("ipam") if isinstance(config, dict) else None
    return str(ipam.get("type") or "") if isinstance(ipam, dict) else ""


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
    main = _main(config)
    kind = str(main.get("type") or "")
    if not kind:
        return Check(title, False, "its configuration has no type: no plugin would make the interface", fix)
    ipam = main.get("ipam")
    words = [f"{kind} on {main['master']}" if main.get("master") else kind]
    words += [f"addresses by {ipam.get('type')}"] if isinstance(ipam, dict) else []
    return Check(title, True, printable(", ".join([*words, f"cniVersion {version}"]), 200))
