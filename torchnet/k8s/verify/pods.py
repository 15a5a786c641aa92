"""The objects of ``torchnet verify``: two pods that meet Pod Security "restricted", and the scripts that they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torchnet import constants
from torchnet.config.pod_user import PodUser
from torchnet.constants import NODE_RANK_LABEL, RUN_LABEL, WORKER
from torchnet.k8s.addons import catalog
from torchnet.k8s.objects.builders import mount, resources
from torchnet.k8s.objects.security_context import RESTRICTED, pod_context

Object = dict[str, Any]
INTERFACE = constants.rail_interface(0)
_ECHO = Path(__file__).parent / "pod_script" / "echo.py"
_NET = Path(catalog.__file__).parent / "example_scripts" / "net.py"
_LIFE = 300  # seconds after which Kubernetes ends the pods if torchnet cannot delete them


def scripts(run: str, namespace: str) -> Object:
    """Return the ConfigMap with the scripts that the pods run."""
    data = {path.name: path.read_text(encoding="utf-8") for path in (_ECHO, _NET)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(run, namespace, run), "data": data}


def pod(
    run: str,
    namespace: str,
    index: int,
    *,
    network: tuple[str, str],
    image: str,
    user: PodUser,
    apart: bool,
    arguments: list[str],
) -> Object:
    """Return test pod ``index``; with ``apart``, it is not scheduled to a node with another pod of this run."""
    metadata = _meta(run, namespace, f"{run}-{index}")
    metadata["labels"][NODE_RANK_LABEL] = str(index)
    entry = {"name": network[1], "namespace": network[0], "interface": INTERFACE}
    metadata["annotations"] = {constants.NETWORKS_ANNOTATION: json.dumps([entry])}
    limits = resources("10m", "32Mi", "500m", "128Mi")
    for part in limits.values():
        part["ephemeral-storage"] = "64Mi"  # a quota on it rejects pods without
    container = {
        "name": WORKER,
        "image": image,
        "command": ["python3", "/verify/echo.py", *arguments],
        "env": [{"name": "INTERFACE", "value": INTERFACE}],
        "resources": limits,
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "volumeMounts": [mount("scripts", "/verify", readOnly=True)],
    }
    spec: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": _LIFE,
        "terminationGracePeriodSeconds": 1,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": pod_context(user),
        "containers": [container],
        "volumes": [{"name": "scripts", "configMap": {"name": run}}],
    }
    if apart:
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {RUN_LABEL: run}}}
        spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _meta(run: str, namespace: str, name: str) -> Object:
    labels = {
        RUN_LABEL: run,
        constants.INSTANCE_LABEL: run,
        "app.kubernetes.io/name": "torchnet",
        "app.kubernetes.io/managed-by": "torchnet",
        f"{constants.LABEL_PREFIX}verify": "true",
    }
    return {"name": name, "namespace": namespace, "labels": labels}
