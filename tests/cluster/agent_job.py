"""A Job of one's own, with the agent in it: what people write who do not launch."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.archive import make
from torchnet.constants import API_DIR, INDEX_LABEL, RUN_LABEL, WORK_DIR

_SCRIPT = "/torchnet/script.py"
_AGENT = ("python3", "/torchnet/torchnet.zip", "agent")
_SHELL = ("sh", "-ec", f'eval "$(python3 /torchnet/torchnet.zip env "$@")"; exec python3 {_SCRIPT}', "sh")
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def objects(
    folder: Path,
    namespace: str,
    name: str,
    script: str,
    *,
    image: str,
    workers: int = 2,
    phases: bool = True,
    joins: bool = True,
    words: tuple[str, ...] = (),
    rights: bool = True,
    memory: str = "",
) -> list[dict[str, Any]]:
    """Account with rights, code, token and an Indexed Job: in two containers, or (``phases=False``) in one.

    With ``phases`` a worker is told what a launcher tells it: its rail's interface, and the labels of rank 0's pod.
    Without, it asks the API for both, and nothing carries a label of torchnet's. Without ``joins`` a shell takes the
    environment alone from torchnet, and starts the script by itself.
    """
    labels = {RUN_LABEL: name} if phases else {"app": name}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    archive = base64.b64encode(make(folder / "torchnet.zip").read_bytes()).decode()
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"token": "of this test"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "binaryData": {"torchnet.zip": archive},
            "data": {"script.py": script},
        },
    ]
    if rights:
        rbac = "rbac.authorization.k8s.io"
        found += [
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name}],
            },
        ]
    return [*found, _job(namespace, name, labels, image, workers, phases, joins, words, memory)]


def _job(
    namespace: str,
    name: str,
    labels: dict[str, str],
    image: str,
    workers: int,
    phases: bool,
    joins: bool,
    words: tuple[str, ...],
    memory: str,
) -> dict[str, Any]:
    def container(phase: str) -> dict[str, Any]:
        flags = ["--run-id", name, "--nnodes", str(workers), "--start-timeout", "60", "--attachment"]
        flags.append(f"{namespace}/backend-network{'@net1' if phases else ''}")
        if phases:
            flags += ["--phase", phase, "--state", "/state"]
            flags += ["--rank0-labels", f"{RUN_LABEL}={name},{INDEX_LABEL}=0"]
        mounts = [
            {"name": "code", "mountPath": "/torchnet", "readOnly": True},
            {"name": "token", "mountPath": "/token", "readOnly": True},
            {"name": "state", "mountPath": "/state"},
            {"name": "work", "mountPath": WORK_DIR},
            {"name": "account", "mountPath": API_DIR, "readOnly": True},
        ]
        if phase == "work" and phases:
            mounts.append({"name": "state", "mountPath": "/etc/hosts", "subPath": "hosts"})
        fields = {
            "POD_NAME": "metadata.name",
            "POD_NAMESPACE": "metadata.namespace",
            "POD_UID": "metadata.uid",
        }
        refs = [{"name": n, "valueFrom": {"fieldRef": {"fieldPath": p}}} for n, p in fields.items()]
        return {
            "name": phase,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": [*(_AGENT if joins else _SHELL), *flags, *words, *([_SCRIPT] if joins else [])],
            "env": [*(refs if phases else []), {"name": "TORCHNET_TOKEN_FILE", "value": "/token/token"}],
            "volumeMounts": mounts,
            "workingDir": WORK_DIR,
            "securityContext": _RESTRICTED,
            "resources": {"limits": {"memory": memory}} if memory else {},
        }

    account = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    networks = [{"name": "backend-network", "namespace": namespace, "interface": "net1"}]
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"fsGroup": 1000},
        "containers": [container("work")],
        "initContainers": [container("prepare")] if phases else [],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        "volumes": [
            {"name": "code", "configMap": {"name": name}},
            {"name": "token", "secret": {"secretName": name}},
            {"name": "state", "emptyDir": {}},
            {"name": "work", "emptyDir": {}},
            {"name": "account", "projected": {"sources": account}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "completionMode": "Indexed",
            "completions": workers,
            "parallelism": workers,
            "backoffLimitPerIndex": 0,
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {"k8s.v1.cni.cncf.io/networks": json.dumps(networks)},
                },
                "spec": pod,
            },
        },
    }
