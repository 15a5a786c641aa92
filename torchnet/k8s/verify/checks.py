"""The checks of ``torchnet verify``: nodes, Multus, Whereabouts, the attachment, and the results of the test pods.

The test pods' output is validated before it is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torchnet import constants
from torchnet.errors import NetworkError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, is_permission_error
from torchnet.k8s.client.kinds import DAEMONSET, NAD, NODE, POD
from torchnet.k8s.run.creation import missing_attachment_error
from torchnet.k8s.verify.pods import INTERFACE
from torchnet.network.network_status import parse
from torchnet.text import listed, printable

SYSTEM = "kube-system"
_OLDEST_CNI = (0, 3, 1)  # with older ones a pod gets an interface but no network-status entry


@dataclass(frozen=True)
class Check:
    """The result of one check; ``fix`` is the next command if it failed."""

    name: str
    good: bool
    evidence: str
    fix: str = ""


def ready_nodes(client: ApiClient) -> list[str]:
    """Return the nodes that accept pods: Ready, not cordoned, and without a NoSchedule or NoExecute taint."""
    answer = client.call("GET", NODE.path(""), NODE.call("list", ""))
    found = []
    for node in answer.get("items") or ():
        spec, conditions = node.get("spec") or {}, (node.get("status") or {}).get("conditions") or ()
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        tainted = any(one.get("effect") in ("NoSchedule", "NoExecute") for one in spec.get("taints") or ())
        if ready and not spec.get("unschedulable") and not tainted:
            found.append(str(node["metadata"]["name"]))
    return sorted(found)


def check_nodes(nodes: Sequence[str]) -> Check:
    """Check that at least one node accepts pods."""
    if not nodes:
        return Check("nodes", False, "no node is Ready and accepts pods", "kubectl get nodes")
    return Check("nodes", True, f"{listed(nodes, limit=8)}: Ready")


def check_plugin(client: ApiClient, title: str, app: str, nodes: Sequence[str]) -> Check:
    """Check that the pods of the DaemonSet with the label ``app`` run on these nodes, in whichever namespace it is."""
    query = {"labelSelector": f"app={app}"}
    fix = f"torchnet manifests {app} | kubectl apply -f -"
    sets, where = _daemonsets(client, query)
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
        for item in client.call("GET", POD.path(namespace), POD.call("list", namespace), query=query).get(
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


def _daemonsets(client: ApiClient, query: dict[str, str]) -> tuple[Sequence[dict[str, Any]], str]:
    """Return the matching DaemonSets, and a description of where they were searched.

    That is the whole cluster, or only kube-system if the user may not list more.
    """
    try:
        found = client.call("GET", DAEMONSET.path(""), DAEMONSET.call("list", ""), query=query)
        where = "any namespace"
    except ApiRefusal as error:
        if not is_permission_error(error.status, error.message):
            raise
        found = client.call("GET", DAEMONSET.path(SYSTEM), DAEMONSET.call("list", SYSTEM), query=query)
        where = f"{SYSTEM} (not allowed to list other namespaces)"
    return found.get("items") or (), where


def check_attachment(client: ApiClient, network: tuple[str, str]) -> tuple[Check, str]:
    """Check the attachment; also return the type of its IPAM plugin ("" if unknown)."""
    namespace, name = network
    title = f"attachment {namespace}/{name}"
    try:
        found = client.call("GET", NAD.path(namespace, name), NAD.call("get", namespace, name))
    except ApiRefusal as error:
        if error.status != 404:
            raise
        absent = missing_attachment_error(client, namespace, name)
        return Check(title, False, absent.text, absent.fix), ""
    text = str((found.get("spec") or {}).get("config") or "")
    if not text:
        evidence = (
            "no inline configuration: Multus reads a file on each node, which only the test pods can check"
        )
        return Check(title, True, evidence), ""
    return check_configuration(title, text), _addresses_by(text)


def _main(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the plugin that creates the interface."""
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


def check_configuration(title: str, text: str) -> Check:
    """Check that an attachment's configuration gives pods an interface and a network-status entry. Pure."""
    fix = "torchnet manifests backend-network | kubectl apply -f -"
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError):
        return Check(title, False, "its configuration is not a JSON object", fix)
    version = str(config.get("cniVersion") or "")
    parts = version.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts) or tuple(map(int, parts)) < _OLDEST_CNI:
        evidence = f"cniVersion is {version!r}: Multus writes no network-status before 0.3.1"
        return Check(title, False, printable(evidence, 200), 'add "cniVersion": "1.0.0" to its configuration')
    main = _main(config)
    kind = str(main.get("type") or "")
    if not kind:
        return Check(title, False, "its configuration has no type, so no plugin creates the interface", fix)
    ipam = main.get("ipam")
    words = [f"{kind} on {main['master']}" if main.get("master") else kind]
    words += [f"addresses by {ipam.get('type')}"] if isinstance(ipam, dict) else []
    return Check(title, True, printable(", ".join([*words, f"cniVersion {version}"]), 200))


Object = dict[str, Any]
NO_PYTHON = "set --image to an image that has Python and that the nodes can pull"
_LINK = "check that node's network card, its cable and its switch port: ip link show"
_UNKNOWN = "unknown"
_LARGEST = 1 << 16  # bytes of a packet


def judge(results: Sequence[tuple[Object, Object]], network: tuple[str, str], apart: bool) -> Iterator[Check]:
    """Yield the checks of the test pods' results.

    Args:
        results: For each pod, the object from the API, and what the pod reported or ``{"problem": TEXT}``. The second
            is missing if the first is `blocked`.
        network: (namespace, name) of the attachment.
        apart: Whether the pods were to run on different nodes.

    Raises:
        NetworkError: A pod's network-status is missing, is invalid, or has no address on the backend.
    """
    nodes = [printable(str((one.get("spec") or {}).get("nodeName")), 80) for one, _ in results]
    if apart and len(nodes) > 1:
        yield Check("test pods", nodes[0] != nodes[1], f"on {nodes[0]} and {nodes[1]}", "kubectl get nodes")
    elif len(nodes) > 1:
        evidence = f"both on {nodes[0]}, the only node: the network between nodes is not tested"
        yield Check("test pods", True, evidence)
    for (body, report), node in zip(results, nodes, strict=True):
        name = body["metadata"]["name"]
        interfaces = sorted(set(_texts(report.get("interfaces"))))
        if not interfaces:
            yield Check(
                "interfaces", False, f"{name} on {node} reported nothing: {_problem(report)}", NO_PYTHON
            )
            continue
        if not {"eth0", INTERFACE} <= set(interfaces):
            definition = f"kubectl get network-attachment-definition {network[1]} -n {network[0]} -o yaml"
            fix = f"{definition}; check the Multus log on {node}"
            yield Check("interfaces", False, f"{name} on {node} has {listed(interfaces, limit=8)}", fix)
            continue
        status_address, own = address_of(body, network), _texts(report.get("addresses"))
        evidence = f"{name}: eth0 and {INTERFACE}, {status_address} in network-status and in the kernel"
        if status_address not in own:
            evidence = (
                f"{name}: network-status has {status_address}, but the kernel {listed(own) or 'no address'}"
            )
        fix = f"check the Multus log on {node}: the status is outdated, or the pod lost the address"
        yield Check("addresses", status_address in own, evidence, fix)
        if blocked(report):
            yield Check("link", False, f"{name} on {node}: {printable(str(report['blocked']), 300)}", _LINK)
    if not any(blocked(report) for _, report in results):
        yield _full_size(nodes, results[0][1], results[1][1])


def blocked(report: Object) -> bool:
    """Return whether the pod's interface did not become usable, so that it tested nothing."""
    return isinstance(report.get("blocked"), str)


def _full_size(nodes: Sequence[str], first: Object, second: Object) -> Check:
    size = _bytes(second.get("size"))
    reached = second.get("reached") is True and size != _UNKNOWN
    evidence = f"{size} bytes in both directions between {nodes[0]} and {nodes[1]}"
    if not reached:
        evidence = f"{_problem(second)} (MTU {_bytes(first.get('mtu'))} and {_bytes(second.get('mtu'))})"
    fix = "set the same MTU on every node's network card and on the switches between them"
    return Check("full size, both ways", reached, evidence, fix)


def address_of(body: Object, network: tuple[str, str]) -> str:
    """Return the pod's address on the backend according to its network-status.

    Raises:
        NetworkError: The network-status is missing, is invalid, or has no such address.
    """
    meta = body["metadata"]
    text = (meta.get("annotations") or {}).get(constants.STATUS_ANNOTATION)
    if not text:
        raise NetworkError(
            f"{meta['name']} has no network-status: Multus did not run on "
            f"{(body.get('spec') or {}).get('nodeName')}",
            fix="the first file in that node's /etc/cni/net.d must be Multus's (Cilium: cni.exclusive=false)",
        )
    for entry in parse(text):
        if entry.name == "/".join(network) and entry.interface == INTERFACE and entry.ips:
            return str(entry.ips[0])
    raise NetworkError(
        f"{meta['name']}'s network-status has no address of {'/'.join(network)} on {INTERFACE}",
        fix="the attachment's cniVersion must be 0.3.1 or newer, and it needs an ipam",
    )


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _bytes(value: object) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST
    return str(value) if good else _UNKNOWN


def _problem(report: Object) -> str:
    text = report.get("problem")
    return printable(text, 500) if isinstance(text, str) and text else "no result"
