"""NetworkPolicies as iptables rules, as https://kubernetes.io/docs/concepts/services-networking/network-policies/ says.

Pure: pods, namespaces and policies are the API's objects, the result is a filter table for one node. Only for IPv4,
which the test cluster's primary network has. Traffic from the node itself is always allowed; replies are, too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
INGRESS, EGRESS = "Ingress", "Egress"
# Policy type -> the keys of its rules and of their peers, and iptables' words for the pod and for its peers.
WORDS = {INGRESS: ("ingress", "from", "-d", "-s"), EGRESS: ("egress", "to", "-s", "-d")}
EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class PodAddress:
    """A pod that has an address on the primary network, and has not ended."""

    namespace: str
    name: str
    node: str
    ip: str
    labels: Mapping[str, str]
    ports: Mapping[str, int]


def addresses(pods: Sequence[Object]) -> list[PodAddress]:
    """The pods that policies apply to, or that can be peers: not those in their hosts' network."""
    return sorted(_addresses(pods), key=lambda one: (one.namespace, one.name))


def _addresses(pods: Sequence[Object]) -> Iterator[PodAddress]:
    for pod in pods:
        meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
        if (
            spec.get("hostNetwork")
            or not status.get("podIP")
            or status.get("phase") in ("Succeeded", "Failed")
        ):
            continue
        ports = {
            port["name"]: port["containerPort"]
            for container in spec["containers"]
            for port in container.get("ports", ())
            if "name" in port
        }
        where = meta["namespace"], meta["name"], spec["nodeName"], status["podIP"]
        yield PodAddress(*where, meta.get("labels", {}), ports)


def table(
    node: str,
    pods: Sequence[PodAddress],
    namespaces: Mapping[str, Mapping[str, str]],
    policies: Sequence[Object],
    held: str = "",
) -> str:
    """The node's filter table for ``iptables-restore``.

    Args:
        namespaces: The labels of each.
        held: The range of the node's pods; those that are not known yet may not send anything. "": they may.
    """
    chains: list[str] = []
    jumps: list[str] = []
    lines: list[str] = []
    for number, pod in enumerate(one for one in pods if one.node == node):
        for kind, (_, _, own, _) in WORDS.items():
            chosen = [one for one in policies if applies(one, pod, kind)]
            if not chosen:
                continue
            chain = f"{kind.upper()}-{number}"
            chains.append(f":{chain} - [0:0]")
            jumps.append(
                f"-A FORWARD {own} {pod.ip}/32 -m comment --comment {pod.namespace}/{pod.name} -j {chain}"
            )
            allowed = {rule for one in chosen for rule in _allowed(one, pod, kind, pods, namespaces)}
            lines += [f"-A {chain} {rule} -j RETURN" for rule in sorted(allowed)]
            lines.append(f"-A {chain} -j DROP")
    if held:
        chains.append(":HELD - [0:0]")
        jumps.append(f"-A FORWARD -s {held} -j HELD")
        lines += [f"-A HELD -s {one.ip}/32 -j RETURN" for one in pods]
        lines.append("-A HELD -j DROP")
    replies = "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    builtin = [f":{name} ACCEPT [0:0]" for name in ("INPUT", "FORWARD", "OUTPUT")]
    return "\n".join(["*filter", *builtin, *chains, replies, *jumps, *lines, "COMMIT", ""])


def applies(policy: Object, pod: PodAddress, kind: str) -> bool:
    """Whether the policy isolates the pod for ingress or egress."""
    spec = policy["spec"]
    types = spec.get("policyTypes") or [INGRESS, *([EGRESS] if spec.get("egress") else [])]
    same = policy["metadata"]["namespace"] == pod.namespace
    return same and kind in types and selects(spec.get("podSelector", {}), pod.labels)


def _allowed(
    policy: Object,
    pod: PodAddress,
    kind: str,
    pods: Sequence[PodAddress],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """iptables' words for what the policy allows the pod: for each peer and each port."""
    rules, peers, _, other = WORDS[kind]
    for rule in policy["spec"].get(rules) or ():
        for peer in rule.get(peers) or [None]:
            for range_, target in _ranges(peer, policy["metadata"]["namespace"], pods, namespaces):
                # A named port is one of the pod that is connected to.
                named = pod if kind == INGRESS else target
                for words in _ports(rule.get("ports"), named):
                    yield f"{other} {range_} {words}".strip()


def _ranges(
    peer: Object | None,
    namespace: str,
    pods: Sequence[PodAddress],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[tuple[str, PodAddress | None]]:
    """The address ranges of a peer, with the pod if it is one."""
    if peer is None:
        yield EVERYWHERE, None
    elif "ipBlock" in peer:
        ranges = [ipaddress.ip_network(peer["ipBlock"]["cidr"])]
        for text in peer["ipBlock"].get("except", ()):
            hole = ipaddress.ip_network(text)
            ranges = [part for one in ranges for part in _without(one, hole)]
        yield from ((str(one), None) for one in ranges)
    else:
        for pod in pods:
            selector = peer.get("namespaceSelector")
            inside = pod.namespace == namespace if selector is None else False
            if selector is not None and pod.namespace in namespaces:
                inside = selects(selector, namespaces[pod.namespace])
            if inside and selects(peer.get("podSelector") or {}, pod.labels):
                yield f"{pod.ip}/32", pod


def _without(one: Any, hole: Any) -> list[Any]:
    if not hole.subnet_of(one):
        return [] if one.subnet_of(hole) else [one]
    return list(one.address_exclude(hole))


def _ports(ports: Sequence[Object] | None, pod: PodAddress | None) -> Iterator[str]:
    if not ports:
        yield ""
        return
    for one in ports:
        protocol, port = one.get("protocol", "TCP").lower(), one.get("port")
        if port is None:
            yield f"-p {protocol}"
            continue
        if isinstance(port, str):
            port = pod.ports.get(port) if pod else None
        if port is not None:
            yield f"-p {protocol} --dport {port}:{one.get('endPort', port)}"


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", ()):
        key, values = one["key"], one.get("values", ())
        if not {
            "In": key in labels and labels[key] in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[one["operator"]]:
            return False
    return True
