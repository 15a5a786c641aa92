"""What ``torchnet verify`` checks before it creates pods: nodes, Multus, the attachments, Whereabouts.

What this user may not read is named, and counts as unknown: the test pods decide then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchnet.errors import NetworkError
from torchnet.k8s.addons.node_ranges import FOLDER
from torchnet.k8s.attachments.cluster_state import CONFIG_MAP, ClusterState
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
from torchnet.units import counted

SYSTEM = "kube-system"
MULTUS = f"-n {SYSTEM} daemonset/kube-multus-ds"
"""Multus's DaemonSet as kubectl's arguments, where it has not been found under another name."""
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
        self._state = ClusterState(client)
        self._definitions: dict[str, Definition] = {}
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
        for path in dict.fromkeys((one.namespace, one.name) for one in self._options.networks):
            yield from self._check_attachment(*path)
        # The other IPAM plugins need no daemon.
        configs = [one.parsed for one in self._definitions.values()]
        if any(one is not None and one.ipam_type == "whereabouts" for one in configs):
            yield self._check_plugin("Whereabouts", "whereabouts")
        yield from self._check_shared()

    def _check_attachment(self, namespace: str, name: str) -> Iterator[Check]:
        title = f"attachment {namespace}/{name}"
        try:
            definition = self._state.definition(namespace, name)
        except ApiRefusal as error:
            if error.status != 404:
                yield unreadable(title, error)
                return
            absent = missing_attachment_error(self._client, namespace, name)
            yield Check(title, False, absent.text, absent.fix)
            return
        self._definitions[definition.path] = definition
        while self._state.skipped:
            yield unknown(title, self._state.skipped.pop(0), CONFIG_MAP.call("get", SYSTEM).question)
        count = None if self.choice is None else len(self.choice.usable) + len(self.choice.left_out)
        usable = None if self.choice is None else self.choice.usable
        yield from check_configuration(title, definition, count, usable)

    def _check_shared(self) -> Iterator[Check]:
        """Compare the attachments with all others that this user may list."""
        title = "other attachments"
        try:
            found = self._state.definitions(self._options.networks[0].namespace, ())
        except NetworkError:
            return  # the check of each attachment has said so
        except ApiRefusal as error:
            yield unreadable(title, error)
            return
        paths = [one.path for one in self._options.networks]
        own = {one.path: one for one in found if one.path in paths} | self._definitions
        others = [one for one in found if one.path not in own]
        for definition, finding in check_shared([*own.values()], others):
            fix = finding.fix or f"torchnet network lint -n {definition.namespace}"
            yield unknown(f"attachment {definition.path}", finding.sentence, fix)
        for line in self._state.skipped:
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


def check_configuration(
    title: str, definition: Definition, count: int | None = None, usable: Sequence[str] | None = None
) -> list[Check]:
    """Check that an attachment's configuration gives pods an interface and a network-status entry. Pure.

    A fault with which pods start is unknown, and so are the files of nodes that are not read: the test pods decide.

    Args:
        count: How many nodes the cluster has; None if unknown.
        usable: The nodes that can run the test pods; None if unknown.
    """
    if not definition.config and not definition.node_configs and not definition.not_text:
        evidence = (
            "no inline configuration: Multus reads a file on each node, which only the test pods can check"
        )
        fix = f'on each node: a file in {FOLDER} with "name": "{printable(definition.name, 80)}"'
        return [unknown(title, evidence, fix)]
    findings = check_definition(definition, count, usable)
    # A node without a file, which is a warning about the whole, is no fault of the attachment: but no pod starts there.
    faults = [one for one in findings if one.level == "fault" or not one.path]
    fix = f"torchnet network lint -n {definition.namespace}"
    config = definition.parsed
    if config is None or any(one.blocks for one in faults):
        evidence = "; ".join(one.sentence for one in faults if one.blocks)
        return [Check(title, False, printable(evidence, 400), fix)]
    main = config.main
    words = [f"{main.type} on {config.master}" if config.master else main.type]
    words += [f"addresses by {config.ipam_type}"] if config.ipam_type else []
    words.append(f"cniVersion {config.body.get('cniVersion') or 'of the list'}")
    words += [f"files of {counted(len(definition.node_configs), 'node')}"] if not definition.config else []
    checks = [Check(title, True, printable(", ".join(words), 200))]
    return checks + [unknown(title, one.sentence, one.fix or fix) for one in faults]
