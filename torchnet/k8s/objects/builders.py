"""Building blocks that manifests share, and the size limits of objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from torchnet.config.k8s_syntax import ANNOTATIONS_LIMIT
from torchnet.errors import UsageError
from torchnet.yaml_io import Manifest

SYSTEM = "kube-system"

# CNI plugins and their configuration must reach nodes that are cordoned, not ready or reserved: a node without
# them starts pods without their second network.
EVERYWHERE = [
    {"operator": "Exists", "effect": "NoSchedule"},
    {"operator": "Exists", "effect": "NoExecute"},
]


def resources(cpu: str, memory: str, cpu_limit: str, memory_limit: str) -> dict[str, Any]:
    """Return the requests and limits of a container, as Kubernetes quantities (``100m``, ``64Mi``)."""
    return {
        "requests": {"cpu": cpu, "memory": memory},
        "limits": {"cpu": cpu_limit, "memory": memory_limit},
    }


def host_path(name: str, path: str) -> dict[str, Any]:
    """Return a volume for a directory of the node, which the kubelet creates if it is missing."""
    return {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}


def mount(name: str, path: str, **more: Any) -> dict[str, Any]:
    """Return a container's mount of a volume."""
    return {"name": name, "mountPath": path, **more}


def api_access(name: str, **more: Any) -> dict[str, Any]:
    """Return a volume with the token, CA certificate and namespace that a client of the API server needs.

    It is for pods without an automounted token: only the container that calls the API server mounts it.
    """
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": name, "projected": {**more, "sources": sources}}


def from_field(name: str, path: str) -> dict[str, Any]:
    """Return an environment variable that holds a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def rule(groups: list[str], resource: list[str], verbs: list[str], **more: Any) -> dict[str, Any]:
    """Return a rule of a Role or ClusterRole."""
    return {"apiGroups": groups, "resources": resource, "verbs": verbs, **more}


def service_account(name: str, namespace: str) -> dict[str, Any]:
    """Return a ServiceAccount."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
    }


def role(name: str, rules: list[dict[str, Any]], namespace: str | None = None) -> dict[str, Any]:
    """Return a Role, or a ClusterRole if there is no namespace."""
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": metadata,
        "rules": rules,
    }


def binding(name: str, role: str, account: tuple[str, str], namespace: str | None = None) -> dict[str, Any]:
    """Bind ``role`` to ``account`` (name, namespace): a RoleBinding, or a ClusterRoleBinding without a namespace."""
    kind = "Role" if namespace else "ClusterRole"
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name, "namespace": namespace} if namespace else {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account[0], "namespace": account[1]}],
    }


def discovery_rules() -> list[dict[str, Any]]:
    """Return the RBAC rules of the service accounts that workers run under.

    A worker reads its own pod, and finds rank 0's pod by label. RBAC cannot restrict a list by label.
    """
    return [rule([""], ["pods"], ["get", "list"])]


# Without --server-side, kubectl apply stores the whole object in an annotation. The 256 bytes are for the annotation's
# name and what kubectl adds.
APPLY_LIMIT = ANNOTATIONS_LIMIT - 256
# Total size of a ConfigMap's values (k8s.io/kubernetes/pkg/apis/core/validation: MaxSecretSize).
MAP_LIMIT = 1 << 20


def check(manifests: Iterable[Manifest]) -> list[str]:
    """Return a line for each object that is too large for ``kubectl apply`` without ``--server-side``.

    Raises:
        UsageError: A ConfigMap exceeds the API server's limit.
    """
    notes = []
    for manifest in manifests:
        body = manifest.body
        size = sum(len(text.encode()) for text in body.get("data", {}).values())
        if body["kind"] == "ConfigMap" and size > MAP_LIMIT:
            raise UsageError(
                f"{_name(body)} would hold {size:,} bytes, and a ConfigMap holds {MAP_LIMIT:,}",
                fix="divide the nodes among several attachments, each with a --name of its own",
            )
        size = len(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
        if size > APPLY_LIMIT:
            notes.append(
                f"{_name(body)} has {size:,} bytes, and kubectl apply takes {APPLY_LIMIT:,}: "
                "kubectl apply --server-side -f -"
            )
    return notes


def _name(body: Mapping[str, Any]) -> str:
    metadata = body["metadata"]
    return f"{body['kind']} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}"
