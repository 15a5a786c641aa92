"""The nodes that test pods can run on, by the scheduler's rules for labels and taints (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.k8s.verify.check import Check
from torchnet.text import listed, printable

Object = dict[str, Any]
_CORDONED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
_NAMED = 8  # nodes that a message names
# Taints of nodes that no job should be sent to: those of the control plane, and those of nodes that are drained, in
# trouble or not ready for pods yet ("Well-Known Labels, Annotations and Taints" in Kubernetes' documentation).
_NEVER_TOLERATED = (
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
)


@dataclass(frozen=True)
class NodeChoice:
    """The nodes of a cluster.

    Attributes:
        usable: Names of the nodes that pods can be scheduled to, sorted.
        left_out: By node, why it is not among them. Nodes that the selector does not match are in neither.
        taints: The taints to tolerate, as KEY:EFFECT, so that pods can be scheduled to most of the nodes left out; ()
            if there are none, or none that a job should tolerate.
    """

    usable: tuple[str, ...]
    left_out: Mapping[str, str]
    taints: tuple[str, ...] = ()


def choose(
    nodes: Iterable[Object], selector: Mapping[str, str], tolerations: Sequence[Mapping[str, str]]
) -> NodeChoice:
    """Return which nodes are Ready, match the selector, and have no NoSchedule or NoExecute taint that counts."""
    usable: list[str] = []
    left_out: dict[str, str] = {}
    tolerable: Counter[tuple[str, ...]] = Counter()  # by the taints of a node, all of which need a toleration
    for node in nodes:
        meta, spec = node["metadata"], node.get("spec") or {}
        labels = meta.get("labels") or {}
        if any(labels.get(key) != value for key, value in selector.items()):
            continue
        name = str(meta["name"])
        found = [*(spec.get("taints") or ())]
        if spec.get("unschedulable") and _CORDONED["key"] not in [one.get("key") for one in found]:
            found.append(_CORDONED)
        against = [
            one
            for one in found
            if one.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(one, tolerations)
        ]
        conditions = (node.get("status") or {}).get("conditions") or ()
        if not any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
            left_out[name] = "not Ready"
        elif against:
            texts = [_text(one) for one in against]
            if not any(str(one.get("key")).startswith(_NEVER_TOLERATED) for one in against):
                tolerable[tuple(sorted(texts))] += 1
            left_out[name] = f"taint {', '.join(texts)}"
        else:
            usable.append(name)
    taints = min(tolerable, key=lambda one: (-tolerable[one], one), default=())
    return NodeChoice(tuple(sorted(usable)), dict(sorted(left_out.items())), taints)


def check_nodes(choice: NodeChoice, selector: Mapping[str, str]) -> Check:
    """Check that there is a usable node; name those that are left out."""
    named = [f"{node} ({why})" for node, why in choice.left_out.items()]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    left = printable(", ".join(named[:_NAMED])) + more
    fix = " ".join(f"--toleration {one}" for one in choice.taints) or "kubectl get nodes"
    if not choice.usable:
        where = f" with the label {listed([f'{k}={v}' for k, v in selector.items()])}" if selector else ""
        evidence = f"no node{where} is Ready and accepts these pods"
        return Check("nodes", False, f"{evidence}: {left}" if left else evidence, fix)
    evidence = f"{listed(choice.usable, limit=_NAMED)}: Ready"
    return Check("nodes", True, f"{evidence}; left out: {left}" if left else evidence)


def _tolerated(taint: Mapping[str, Any], tolerations: Sequence[Mapping[str, str]]) -> bool:
    """Return whether a toleration matches (k8s.io/api/core/v1: Toleration.ToleratesTaint)."""
    for one in tolerations:
        if one.get("effect", "") not in ("", taint.get("effect")):
            continue
        if one.get("key", "") not in ("", taint.get("key")):
            continue
        if one.get("operator") == "Exists" or one.get("value", "") == (taint.get("value") or ""):
            return True
    return False


def _text(taint: Mapping[str, Any]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return printable(f"{taint.get('key')}{value}:{taint.get('effect')}", 200)
