"""What ``torchnet verify`` checks before it creates pods: nodes, Multus, the attachments, Whereabouts.

What this user may not read is named, and counts as unknown: the test pods decide then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchnet.errors import NetworkError
from torchnet.k8s.attachments.cluster_state import ClusterState
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.lint import check_definition
from torchnet.k8s.attachments.shared_rules import check_shared
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
_PAGE = 500


class Installation:
    """The checks of the installation, and what they found.

    Attributes:
        choice: The nodes; None if this user may not list them.
        multus: Multus's DaemonSet, as kubectl's arguments.
    """

    def __init__(self, client: ApiClient, options: PodOptions) -> None:
        self._client, self._options = client, options
        self.choice: NodeChoice | None = None
        self.multus = MULTUS

    def checks(self) -> Iterator[Check]:
        """Yield each check as soon as it is done.

        Raises:
            ClusterError: The cluster cannot be reached, or refuses a request for another reason than missing rights.
        """
        yield self._check_nodes()
        yield self._check_plugin("Multus", "multus")
        whereabouts = False
        for path in dict.fromkeys((one.namespace, one.name) for one in self._options.networks):
            count = None if self.choice is None else len(self.choice.usable) + len(self.choice.left_out)
            checks, ipam = check_attachment(self._client, path, count)
            whereabouts = whereabouts or ipam == "whereabouts"  # the other IPAM plugins need no daemon
            yield from checks
        if whereabouts:
            yield self._check_plugin("Whereabouts", "whereabouts")
        yield from self._check_shared()

    def _check_shared(self) -> Iterator[Check]:
        """Compare the attachments with all others that this user may list."""
        state = ClusterState(self._client)
        paths = [one.path for one in self._options.networks]
        title = "other attachments"
        try:
            found = state.definitions(self._options.networks[0].namespace, paths)
        except NetworkError:
            return  # the check of each attachment has said so
        except ApiRefusal as error:
            yield unreadable(title, error)
            return
        own = [one for one in found if one.path in paths]
        others = [one for one in found if one.path not in paths]
        for definition, finding in check_shared(own, others):
            fix = finding.fix or f"torchnet network lint -n {definition.namespace}"
            yield unknown(f"attachment {definition.path}", finding.sentence, fix)
        for line in state.skipped:
            yield unknown(title, line, NAD.call("list", "").question)

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
            return check_plugin(self._client, title, app, sets, usable)
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
) -> Check:
    """Check that the pods of the DaemonSets with the label ``app`` run on these nodes.

    Args:
        sets: The DaemonSets, in whichever namespace they are.
        usable: The nodes; None if they are not known, so that the DaemonSets' own status decides.
    """
    if not sets:
        fix = f"torchnet manifests {app} | kubectl apply -f -"
        return Check(title, False, f"no DaemonSet with app={app} in any namespace", fix)
    ready = 0
    for one in sets:
        status, meta = one.get("status") or {}, one["metadata"]
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        if ready < wanted:
            evidence = f"DaemonSet {meta['namespace']}/{meta['name']}: {ready} of {wanted} Ready"
            fix = f"kubectl describe pods -n {meta['namespace']} -l app={app}"
            return Check(title, False, evidence, fix)
    if usable is None:
        return Check(title, True, f"all {ready} pods of its DaemonSet are Ready")
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
    running = {
        str((one.get("spec") or {}).get("nodeName"))
        for one in pods
        if (one.get("status") or {}).get("phase") == "Running"
    }
    without = [node for node in usable if node not in running]
    if without:
        fix = f"kubectl get pods -n {namespaces[0]} -l app={app} -o wide"
        return Check(title, False, f"not running on {listed(without, limit=8)}", fix)
    return Check(title, True, f"Running on {len(usable)} of {len(usable)} nodes")


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


def check_attachment(
    client: ApiClient, network: tuple[str, str], nodes: int | None = None
) -> tuple[list[Check], str]:
    """Check an attachment (namespace, name); also return the type of its IPAM plugin ("" if unknown).

    Args:
        nodes: How many nodes the cluster has; None if unknown.
    """
    namespace, name = network
    title = f"attachment {namespace}/{name}"
    try:
        found = client.call("GET", NAD.path(namespace, name), NAD.call("get", namespace, name))
    except ApiRefusal as error:
        if error.status != 404:
            return [unreadable(title, error)], ""
        absent = missing_attachment_error(client, namespace, name)
        return [Check(title, False, absent.text, absent.fix)], ""
    text = str((found.get("spec") or {}).get("config") or "")
    if not text:
        evidence = (
            "no inline configuration: Multus reads a file on each node, which only the test pods can check"
        )
        return [Check(title, True, evidence)], ""
    definition = Definition(namespace, name, text)
    ipam = definition.parsed.ipam_type if definition.parsed is not None else ""
    return check_configuration(title, definition, nodes), ipam


def check_configuration(title: str, definition: Definition, nodes: int | None = None) -> list[Check]:
    """Check that an attachment's configuration gives pods an interface and a network-status entry. Pure.

    A fault with which pods start is unknown: the test pods decide.
    """
    faults = [one for one in check_definition(definition, nodes) if one.level == "fault"]
    fix = f"torchnet network lint -n {definition.namespace}"
    config = definition.parsed
    if config is None or any(one.blocks for one in faults):
        evidence = "; ".join(one.sentence for one in faults if one.blocks)
        return [Check(title, False, printable(evidence, 400), fix)]
    main = config.main
    words = [f"{main.type} on {config.master}" if config.master else main.type]
    words += [f"addresses by {config.ipam_type}"] if config.ipam_type else []
    words.append(f"cniVersion {config.body.get('cniVersion') or 'of the list'}")
    checks = [Check(title, True, printable(", ".join(words), 200))]
    return checks + [unknown(title, one.sentence, one.fix or fix) for one in faults]
