"""Namespaces with a uid range, as OpenShift's default security context constraint gives them: by admission policies.

In a namespace with the label, a pod without a user or an fsGroup is given the range's first number, and a pod with one
outside of the range is refused, as is any other group than root's. Nobody sets a group: the images have no entry for
such a user, so it is root's.
"""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.shell import ClusterFailure, wait_until

LABEL = "tests.torchnet/uid-range"
FIRST, LAST = 1_000_700_000, 1_000_709_999
_NAME = "tests-uid-range"
_WITHIN = f"{{0}} >= {FIRST} && {{0}} <= {LAST}"


def _validations() -> list[dict[str, str]]:
    pod = "object.spec.securityContext"
    found = [
        {
            "expression": f"has({pod}.{field}) && {_WITHIN.format(f'{pod}.{field}')}",
            "message": f"spec.securityContext.{field} must be in the range {FIRST}-{LAST}",
        }
        for field in ("runAsUser", "fsGroup")
    ]
    found.append(
        {
            "expression": f"!has({pod}.runAsGroup) || {pod}.runAsGroup == 0",
            "message": "spec.securityContext.runAsGroup must be 0",
        }
    )
    own = " && ".join(f"!has(c.securityContext.{field})" for field in ("runAsUser", "runAsGroup"))
    for field in ("containers", "initContainers"):
        found.append(
            {
                "expression": f"!has(object.spec.{field}) || object.spec.{field}.all(c, !has(c.securityContext) || "
                f"({own}))",
                "message": f"spec.{field} must not set ids of their own",
            }
        )
    return found


def _mutation(field: str) -> dict[str, Any]:
    """Give a pod the field if it has none."""
    context = f"Object.spec.securityContext{{{field}: {FIRST}}}"
    expression = (
        f"has(object.spec.securityContext) && has(object.spec.securityContext.{field}) ? Object{{}} : "
        f"Object{{spec: Object.spec{{securityContext: {context}}}}}"
    )
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def _objects() -> list[dict[str, Any]]:
    group, meta = "admissionregistration.k8s.io", {"name": _NAME}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    matched = {"resourceRules": [pods]}
    labelled = {"namespaceSelector": {"matchExpressions": [{"key": LABEL, "operator": "Exists"}]}}
    validating, mutating = f"{group}/v1", f"{group}/v1beta1"
    return [
        {
            "apiVersion": validating,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": meta,
            "spec": {"matchConstraints": matched, "validations": _validations()},
        },
        {
            "apiVersion": validating,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": meta,
            "spec": {"policyName": _NAME, "validationActions": ["Deny"], "matchResources": labelled},
        },
        {
            "apiVersion": mutating,
            "kind": "MutatingAdmissionPolicy",
            "metadata": meta,
            "spec": {
                "matchConstraints": matched,
                "reinvocationPolicy": "Never",
                "mutations": [_mutation(field) for field in ("runAsUser", "fsGroup")],
            },
        },
        {
            "apiVersion": mutating,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": meta,
            "spec": {"policyName": _NAME, "matchResources": labelled},
        },
    ]


def install(cluster: Cluster) -> None:
    """Make the policies; they concern no namespace yet."""
    document = {"apiVersion": "v1", "kind": "List", "items": _objects()}
    cluster.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(document))


def give(cluster: Cluster, namespace: str) -> None:
    """Give the namespace its range, and wait until it is in force: the API server learns of policies by watching."""
    cluster.kubectl("label", "namespace", namespace, f"{LABEL}={FIRST}")

    def in_force() -> bool:
        assigned = json.loads(_tried(cluster, namespace, {}))["spec"]["securityContext"]
        if (assigned.get("runAsUser"), assigned.get("fsGroup")) != (FIRST, FIRST):
            return False
        try:
            _tried(cluster, namespace, {"runAsUser": 1000})
        except ClusterFailure as refused:
            return str(FIRST) in str(refused)
        return False

    wait_until(f"the uid range of {namespace}", 20, in_force)


def _tried(cluster: Cluster, namespace: str, context: dict[str, Any]) -> str:
    """A pod as it would be created."""
    container = {
        "name": "c",
        "image": "tried",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **context}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tried"},
        "spec": {"securityContext": context, "containers": [container]},
    }
    words = ("create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-")
    return cluster.kubectl(*words, input=json.dumps(body))
