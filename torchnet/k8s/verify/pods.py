"""The objects of ``torchnet verify``: pods that meet Pod Security "restricted", and the scripts that they run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torchnet
from torchnet import constants
from torchnet.config.pod_user import DEFAULT_USER, PodUser
from torchnet.constants import LABEL_PREFIX, NODE_RANK_LABEL, QUEUE_LABEL, RUN_LABEL, WORKER
from torchnet.k8s.addons import catalog
from torchnet.k8s.objects import network_annotation
from torchnet.k8s.objects.builders import mount, resources
from torchnet.k8s.objects.security_context import RESTRICTED, pod_context
from torchnet.network.attachment import NetworkAttachment

Object = dict[str, Any]
PORT = constants.JOIN_PORT
PLAN_ANNOTATION = f"{LABEL_PREFIX}verify-plan"
_SCRIPTS = (
    Path(__file__).parent / "pod_script" / "probe.py",
    Path(catalog.__file__).parent / "example_scripts" / "net.py",
    # The measurement of `torchnet bench`. The pods have nothing but Python, so its other modules stay here.
    Path(torchnet.__file__).parent / "bench" / "worker" / "tcp.py",
)
# Seconds after which Kubernetes ends the pods if torchnet cannot delete them. They include the pull of the image.
_LIFE = 3600
# With a lower limit, the bandwidth would be that of the limit.
_CPU_LIMIT = {False: "500m", True: "4"}


@dataclass(frozen=True)
class PodOptions:
    """What the user decides about the test pods.

    Attributes:
        networks: One attachment for each rail, each with its namespace.
        tolerations: Tolerations as in a pod's specification.
        queue: LocalQueue of Kueue; "" for none.
        user: The user and groups of the processes.
    """

    networks: Sequence[NetworkAttachment]
    image: str
    tolerations: Sequence[Mapping[str, str]] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    image_pull_secrets: Sequence[str] = ()
    queue: str = ""
    user: PodUser = DEFAULT_USER

    @property
    def rails(self) -> list[str]:
        """The interfaces of the attachments."""
        return [one.interface for one in self.networks]


def scripts(run: str, namespace: str) -> Object:
    """Return the ConfigMap with the scripts that the pods run."""
    data = {path.name: path.read_text(encoding="utf-8") for path in _SCRIPTS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(run, namespace, run), "data": data}


def pod(
    run: str,
    namespace: str,
    index: int,
    options: PodOptions,
    *,
    affinity: Object | None = None,
    steps: Object | None = None,
    bandwidth: bool = False,
) -> Object:
    """Return test pod ``index``.

    Args:
        affinity: The pod's affinity; None for none.
        steps: The pod's `plan`; None if it gets one later, or only serves.
        bandwidth: Whether the pod is to measure bandwidth, so that it needs more of a processor.
    """
    name = f"{run}-{index}"
    metadata = _meta(run, namespace, name)
    metadata["labels"][NODE_RANK_LABEL] = str(index)
    if options.queue:
        metadata["labels"][QUEUE_LABEL] = options.queue
    metadata["annotations"] = {constants.NETWORKS_ANNOTATION: network_annotation.networks(options.networks)}
    if steps is not None:
        metadata["annotations"] |= plan_annotation(steps)
    needs = resources("10m", "32Mi", _CPU_LIMIT[bandwidth], "256Mi")
    # A ResourceQuota on it rejects pods without; Kueue rejects pods with it unless its ClusterQueue covers it.
    disk = {} if options.queue else {"ephemeral-storage": "64Mi"}
    devices = network_annotation.device_resources(options.networks)
    container = {
        "name": WORKER,
        "image": options.image,
        "command": ["python3", "/verify/probe.py", run, name, str(PORT), *options.rails],
        "resources": {key: value | disk | devices for key, value in needs.items()},
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "volumeMounts": [mount("scripts", "/verify", readOnly=True), mount("plan", "/plan", readOnly=True)],
    }
    spec: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": _LIFE,
        "terminationGracePeriodSeconds": 1,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": pod_context(options.user),
        "containers": [container],
        "volumes": [{"name": "scripts", "configMap": {"name": run}}, _PLAN_VOLUME],
    }
    if options.node_selector:
        spec["nodeSelector"] = dict(sorted(options.node_selector.items()))
    if options.tolerations:
        spec["tolerations"] = [dict(one) for one in options.tolerations]
    if options.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in options.image_pull_secrets]
    if affinity is not None:
        spec["affinity"] = affinity
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


# The kubelet updates the file soon after the annotation changes. A ConfigMap would take a minute more.
_PLAN_VOLUME = {
    "name": "plan",
    "downwardAPI": {
        "items": [{"path": "plan", "fieldRef": {"fieldPath": f"metadata.annotations['{PLAN_ANNOTATION}']"}}]
    },
}


STEP_SECONDS = (
    35.0  # that two pods need for a test at most, for each rail: 20 s until packets pass, 15 s to measure
)
SKEW_SECONDS = 90.0  # from the first pod that reads its plan to the last one


def plan(steps: Sequence[Object], rails: int, *, bandwidth: bool) -> Object:
    """Return the plan of a pod.

    Args:
        steps: In order, ``{"partner": POD, "addresses": {RAIL: ADDRESS}}`` for a test that this pod makes, and
            ``{"partner": POD}`` for one that the partner makes.
    """
    timing = {"step_s": rails * STEP_SECONDS, "skew_s": SKEW_SECONDS}
    return {"bandwidth": bandwidth, **timing, "steps": list(steps)}


def plan_annotation(steps: Object) -> dict[str, str]:
    """Return the annotation that gives a pod its `plan`."""
    return {PLAN_ANNOTATION: json.dumps(steps, separators=(",", ":"))}


def apart(run: str, *, required: bool) -> Object:
    """Return the affinity of pods that are not to share a node, or if not ``required``, only where possible."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {RUN_LABEL: run}}}
    if required:
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    preferred = {"weight": 100, "podAffinityTerm": term}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}


def on_node(node: str) -> Object:
    """Return the affinity of a pod for one node, as the DaemonSet controller sets it.

    Unlike ``nodeName``, it leaves the decision to the scheduler: taints count, and a full node gets no pod.
    """
    match = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [match]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _meta(run: str, namespace: str, name: str) -> Object:
    labels = {
        RUN_LABEL: run,
        constants.INSTANCE_LABEL: run,
        "app.kubernetes.io/name": "torchnet",
        "app.kubernetes.io/managed-by": "torchnet",
        f"{LABEL_PREFIX}verify": "true",
    }
    return {"name": name, "namespace": namespace, "labels": labels}
