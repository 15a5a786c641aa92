"""What ``torchnet verify`` checks before it creates pods: nodes, Multus, the attachments, Whereabouts.

What this user may not read is named, and counts as unknown: the test pods decide then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, is_permission_error
from torchnet.k8s.client.kinds import DAEMONSET, NAD, NODE, POD
from torchnet.k8s.run.creation import missing_attachment_error
from torchnet.k8s.verify.check import Check, Object, unknown, unreadable
from torchnet.k8s.verify.nodes import NodeChoice, check_nodes, choose
from torchnet.k8s.verify.pods import PodOptions
from torchnet.text import listed, printable

SYSTEM = "kube-system"
MULTUS = f"-n {SYSTEM} daemonset/kube-multus-ds"
"""Multus's DaemonSet as kubectl's arguments, where it has not been found under another name."""
_OLDEST_CNI = (0, 3, 1)  # with older ones a pod gets an interface but no network-status entry
_PAGE = 500


class Installation:
    """The checks of the installation, and what they found.

    Attributes:
        choice: The nodes; None if this user may not list them.
        multus: Multus's DaemonSet, as kubectl's arguments.
        faulty: By usable node, the failed check that concerns it alone: the nodes without a daemon.
    """

    def __init__(self, client: ApiClient, options: PodOptions) -> None:
        self._client, self._options = client, options
        self.choice: NodeChoice | None = None
        self.multus = MULTUS
        self.faulty: dict[str, Check] = {}

    def checks(self) -> Iterator[Check]:
        """Yield each check as soon as it is done.

        Raises:
            ClusterError: The cluster cannot be reached, or refuses a request for another reason than missing rights.
        """
        yield self._check_nodes()
        yield self._check_plugin("Multus", "multus")
        whereabouts = False
        for path in dict.fromkeys((one.namespace, one.name) for one in self._options.networks):
            check, ipam = check_attachment(self._client, path)
            whereabouts = whereabouts or ipam == "whereabouts"  # the other IPAM plugins need no daemon
            yield check
        if whereabouts:
            yield self._check_plugin("Whereabouts", "whereabouts")

    def _check_nodes(self) -> Check:
        selector = self._options.node_selector
        try:
            listed_nodes = nodes(self._client)
        except ApiRefusal as error:
            return unreadable("nodes", error)
        self.choice = choose(listed_nodes, selector, self._options.tolerations)
        return check_nodes(self.choice, selector)

    def _check_plugin(self, title: str, app: str) -> Check:
        try:
            sets, everywhere = _daemonsets(self._client, {"labelSelector": f"app={app}"})
            if sets and app == "multus":
                meta = sets[0]["metadata"]
                self.multus = f"-n {meta['namespace']} daemonset/{meta['name']}"
            if not sets and not everywhere:
                evidence = f"no DaemonSet with app={app} in {SYSTEM}; not allowed to list other namespaces"
                return unknown(title, evidence, DAEMONSET.call("list", "").question)
            usable = self.choice.usable if self.choice is not None and self.choice.usable else None
            check, without = check_plugin(self._client, title, app, sets, usable)
            self.faulty |= dict.fromkeys(without, check)
            return check
        except ApiRefusal as error:
            return unreadable(title, error)


def nodes(client: ApiClient) -> list[Object]:
    """Return all nodes, read in pages.

    Raises:
        ApiRefusal: This user may not list nodes.
    """
    found: list[Object] = []
    rest = ""
    while True:
        query: dict[str, object] = {"limit": _PAGE} | ({"continue": rest} if rest else {})
        answer = client.call("GET", NODE.path(""), NODE.call("list", ""), query=query)
        found += answer.get("items") or ()
        rest = str((answer.get("metadata") or {}).get("continue") or "")
        if not rest:
            return found


def check_plugin(
    client: ApiClient, title: str, app: str, sets: Sequence[Object], usable: Sequence[str] | None
) -> tuple[Check, Sequence[str]]:
    """Check that the pods of the DaemonSets with the label ``app`` are Ready on these nodes.

    The DaemonSets' status counts all nodes, also those that are not Ready or in maintenance. So it decides only where
    the nodes are not known, and even then some missing pods say nothing about the nodes that test pods get.

    Args:
        sets: The DaemonSets, in whichever namespace they are.
        usable: The nodes; None if they are not known.

    Returns:
        The check, and the nodes where no such pod is Ready.
    """
    if not sets:
        fix = f"torchnet manifests {app} | kubectl apply -f -"
        return Check(title, False, f"no DaemonSet with app={app} in any namespace", fix), ()
    if usable is None:
        return _check_status(title, app, sets), ()
    namespaces = sorted({str(one["metadata"]["namespace"]) for one in sets})
    query = {"labelSelector": f"app={app}"}
    pods = [
        item
        for namespace in namespaces
        for item in client.call("GET", POD.path(namespace), POD.call("list", namespace), query=query).get(
            "items"
        )
        or ()
    ]
    ready = {str((one.get("spec") or {}).get("nodeName")) for one in pods if _is_ready(one)}
    without = [node for node in usable if node not in ready]
    if without:
        fix = f"kubectl get pods -n {namespaces[0]} -l app={app} -o wide"
        return Check(title, False, f"not Ready on {listed(without, limit=8)}", fix), without
    return Check(title, True, f"Ready on {len(usable)} of {len(usable)} nodes"), ()


def _check_status(title: str, app: str, sets: Sequence[Object]) -> Check:
    """Check the pods of DaemonSets by their own status."""
    ready = 0
    for one in sets:
        status, meta = one.get("status") or {}, one["metadata"]
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        if ready < wanted:
            evidence = f"DaemonSet {meta['namespace']}/{meta['name']}: {ready} of {wanted} Ready"
            fix = f"kubectl describe pods -n {meta['namespace']} -l app={app}"
            return unknown(title, evidence, fix) if ready else Check(title, False, evidence, fix)
    return Check(title, True, f"all {ready} pods of its DaemonSet are Ready")


def _is_ready(pod: Object) -> bool:
    """Whether a pod is Ready. The phase of a pod that crashes again and again is Running, too."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _daemonsets(client: ApiClient, query: dict[str, str]) -> tuple[Sequence[Object], bool]:
    """Return the matching DaemonSets, and whether they were searched in the whole cluster.

    If the user may not list more, they are searched in kube-system.
    """
    try:
        found = client.call("GET", DAEMONSET.path(""), DAEMONSET.call("list", ""), query=query)
    except ApiRefusal as error:
        if not is_permission_error(error.status, error.message):
            raise
        found = client.call("GET", DAEMONSET.path(SYSTEM), DAEMONSET.call("list", SYSTEM), query=query)
        return found.get("items") or (), False
    return found.get("items") or (), True


def check_attachment(client: ApiClient, network: tuple[str, str]) -> tuple[Check, str]:
    """Check an attachment (namespace, name); also return the type of its IPAM plugin ("" if unknown)."""
    namespace, name = network
    title = f"attachment {namespace}/{name}"
    try:
        found = client.call("GET", NAD.path(namespace, name), NAD.call("get", namespace, name))
    except ApiRefusal as error:
        if error.status != 404:
            return unreadable(title, error), ""
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
