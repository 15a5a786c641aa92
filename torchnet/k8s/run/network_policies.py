"""Whether the NetworkPolicies of a run's namespace deny what the workers need on eth0: each other, and DNS.

A pod that some policy selects is denied what no policy allows, since policies are additive. This is known from the
policies alone, but whether the cluster enforces them is not, so the result is a warning. A rule that might allow
something (an ipBlock, a selector of other namespaces, a named port) counts as allowing it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.constants import JOIN_PORT
from torchnet.errors import ClusterError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.kinds import NETWORK_POLICY, POD
from torchnet.k8s.run.run_info import RunInfo
from torchnet.text import listed, printable

Object = Mapping[str, Any]
INGRESS, EGRESS = "Ingress", "Egress"
# Policies apply to the DNS server's pods, not to its Service; those of OpenShift listen on 5353.
DNS_PORTS = (53, 5353)
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"  # which the API server sets on every namespace


@dataclass(frozen=True)
class DeniedTraffic:
    """Traffic of the workers that no policy allows.

    Attributes:
        direction: `INGRESS` or `EGRESS`.
        peer: the other end, with the port.
        policies: names of the policies that select the workers for this direction.
    """

    direction: str
    peer: str
    policies: tuple[str, ...]


def denied_traffic(
    policies: Iterable[Object], namespace: str, labels: Mapping[str, str]
) -> list[DeniedTraffic]:
    """Return what the policies of ``namespace`` deny the pods with these labels. Pure."""
    own = f"the job's own pods (TCP port {JOIN_PORT})"
    dns = f"DNS (UDP port {DNS_PORTS[0]})"
    selecting = [one for one in policies if _selects(_spec(one).get("podSelector"), labels, complete=True)]
    found = []
    for direction, key, peers in ((INGRESS, "ingress", "from"), (EGRESS, "egress", "to")):
        chosen = [one for one in selecting if direction in _types(_spec(one))]
        if not chosen:
            continue
        names = tuple(sorted(printable(str(one["metadata"]["name"]), 80) for one in chosen))
        rules = [rule for one in chosen for rule in _spec(one).get(key) or ()]
        if not any(
            _has_port(rule, "TCP", (JOIN_PORT,)) and _admits_own(rule.get(peers), namespace, labels)
            for rule in rules
        ):
            found.append(DeniedTraffic(direction, own, names))
        if direction == EGRESS and not any(
            _has_port(rule, "UDP", DNS_PORTS) and _admits_others(rule.get(peers)) for rule in rules
        ):
            found.append(DeniedTraffic(direction, dns, names))
    return found


def _spec(policy: Object) -> Object:
    return policy.get("spec") or {}


def _types(spec: Object) -> Sequence[str]:
    return spec.get("policyTypes") or [INGRESS, *([EGRESS] if spec.get("egress") else [])]


def _admits_own(peers: Sequence[Object] | None, namespace: str, labels: Mapping[str, str]) -> bool:
    """Return whether one of a rule's peers may be a pod of this namespace with these labels."""
    if not peers:
        return True
    known = {_NAMESPACE_LABEL: namespace}
    return any(
        "ipBlock" in peer
        or (
            _selects(peer.get("podSelector"), labels, complete=True)
            and _selects(peer.get("namespaceSelector"), known, complete=False)
        )
        for peer in peers
    )


def _admits_others(peers: Sequence[Object] | None) -> bool:
    """Return whether one of a rule's peers may be outside of the policy's namespace, where the DNS server is."""
    return not peers or any("ipBlock" in peer or peer.get("namespaceSelector") is not None for peer in peers)


def _has_port(rule: Object, protocol: str, numbers: Sequence[int]) -> bool:
    """Return whether a rule applies to one of these ports, or may: a named port has the number that a pod gives it."""
    entries = rule.get("ports")
    if not entries:
        return True
    for entry in entries:
        if (entry.get("protocol") or "TCP") != protocol:
            continue
        port = entry.get("port")
        if not isinstance(port, int):
            return True
        last = entry.get("endPort") or port
        if any(port <= number <= last for number in numbers):
            return True
    return False


def _selects(selector: Object | None, labels: Mapping[str, str], *, complete: bool) -> bool:
    """Return whether a label selector matches; unless the labels are ``complete``, whether it may match."""
    if not selector:
        return True
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items() if complete or key in labels):
        return False
    for one in selector.get("matchExpressions") or ():
        key, operator, values = one.get("key"), one.get("operator"), one.get("values") or ()
        if not complete and key not in labels:
            continue
        matches = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not matches.get(operator, True):
            return False
    return True


def warning_text(denied: Sequence[DeniedTraffic], namespace: str) -> str:
    """Return a warning with the next command, or "" if nothing is denied."""
    if not denied:
        return ""
    names = sorted({name for one in denied for name in one.policies})
    missing = [f"{'ingress from' if one.direction == INGRESS else 'egress to'} {one.peer}" for one in denied]
    fixes = []
    if any(one.direction == EGRESS for one in denied):
        fixes.append(f"torchnet manifests network-policy -n {namespace} | kubectl apply -f -")
    if any(one.direction == INGRESS for one in denied):
        fixes.append("--network-policy isolate")
    return (
        f"NetworkPolicy {listed(names, limit=4)} in namespace {namespace}: no rule allows the workers "
        f"{', '.join(missing)}; they cannot join where the cluster enforces policies\nfix: {'; '.join(fixes)}"
    )


def policy_warning(client: ApiClient, info: RunInfo, labels: Mapping[str, str] | None = None) -> str:
    """Return a warning if the policies that exist deny what the run needs; "" if not, or if they cannot be listed.

    Args:
        labels: of the pods; by default those of a pod that exists, without which there is no warning.
    """
    if info.nnodes == 1 or info.network != "multus-status":
        return ""  # nobody to join, a host's network, or fixed addresses on the backend
    try:
        path, call = NETWORK_POLICY.path(info.namespace), NETWORK_POLICY.call("list", info.namespace)
        answer = client.call("GET", path, call, patience=0.0)
        labels = _pod_labels(client, info) if labels is None else labels
    except ClusterError:
        return ""
    if not labels:
        return ""
    return warning_text(denied_traffic(answer.get("items") or (), info.namespace, labels), info.namespace)


def _pod_labels(client: ApiClient, info: RunInfo) -> Mapping[str, str]:
    """Return the labels of a pod of the run, among them the user's own; {} if it has no pods."""
    query = {"labelSelector": info.selector, "limit": 1}
    path, call = POD.path(info.namespace), POD.call("list", info.namespace)
    pods = client.call("GET", path, call, query=query, patience=0.0).get("items") or ()
    return next((one["metadata"].get("labels") or {} for one in pods), {})
