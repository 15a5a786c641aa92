"""whereabouts-install: cluster-wide addresses for second networks, with its control loop and its reconciler.

Names, labels and selectors are those of upstream (doc/crds of v0.9.4), so that applying this manifest over an upstream
installation replaces it in place, and `-l app=whereabouts` finds the DaemonSet. The node-slice controller is left out:
Whereabouts panics with ``node_slice_size`` on IPv6 ranges, and ``torchnet manifests backend-network --slice`` replaces
it.
"""

from __future__ import annotations

from typing import Any

from torchnet.k8s.addons import crds, images
from torchnet.k8s.addons.addon_options import Options
from torchnet.k8s.objects.builders import (
    EVERYWHERE,
    SYSTEM,
    binding,
    from_field,
    host_path,
    mount,
    resources,
    role,
    rule,
    service_account,
)
from torchnet.k8s.objects.security_context import RESTRICTED
from torchnet.yaml_io import Manifest

HEAD = """\
Whereabouts v0.9.4: allocates an address on a second network to each pod, unique in the cluster.

The plugin runs on the host, so the logs of these pods do not show the allocations. With
`torchnet manifests backend-network --log-file FILE`, the plugin writes them to FILE on each node."""

_NAME = "whereabouts"
_LABELS = {"tier": "node", "app": _NAME, "name": _NAME}
_RECONCILER = "whereabouts-reconciler"
_RECONCILER_LABELS = {"tier": "node", "app": _RECONCILER, "name": _RECONCILER}
_CONFIG = "whereabouts-config"
_INSTALLED = "/host/etc/cni/net.d/whereabouts.d/whereabouts.conf"
_PLUGIN = "/host/opt/cni/bin/whereabouts"

_START = """\
SLEEP=false source /install-cni.sh
/token-watcher.sh &
exec /ip-control-loop -log-level verbose
"""


def manifests(options: Options) -> list[Manifest]:
    """Return all objects of Whereabouts."""
    image = images.at(images.WHEREABOUTS, options.registry)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _CONFIG, "namespace": SYSTEM},
        "data": {"cron-expression": "30 4 * * *"},
    }
    return [
        *(Manifest(crd()) for crd in (crds.pools, crds.reservations, crds.slice_pools)),
        Manifest(service_account(_NAME, SYSTEM)),
        Manifest(role("whereabouts-cni", _RULES)),
        Manifest(binding(_NAME, "whereabouts-cni", (_NAME, SYSTEM))),
        Manifest(
            role(_NAME, [rule(["coordination.k8s.io"], ["leases"], ["get", "create", "update"])], SYSTEM),
            {"": "One lease serializes all allocations of the cluster."},
        ),
        Manifest(binding(_NAME, _NAME, (_NAME, SYSTEM), SYSTEM)),
        Manifest(
            config,
            {
                "data.cron-expression": "When the addresses of deleted pods are released, in UTC. Once a day at "
                "a quiet time: a pod that is just starting can look deleted, and would lose its address."
            },
        ),
        Manifest(_daemon_set(image), _NOTES),
        Manifest(_reconciler(image), _RECONCILER_NOTES),
    ]


_RULES = [
    rule(
        ["whereabouts.cni.cncf.io"],
        ["ippools", "overlappingrangeipreservations", "nodeslicepools"],
        ["get", "list", "watch", "create", "update", "patch", "delete"],
    ),
    rule([""], ["pods"], ["get", "list", "watch"]),
    rule([""], ["nodes"], ["get"]),
    rule(["k8s.cni.cncf.io"], ["network-attachment-definitions"], ["get", "list", "watch"]),
    rule(["", "events.k8s.io"], ["events"], ["get", "create", "patch", "update"]),
]

_NOTES = {
    "spec.template.spec.containers[0].args": "Installs the plugin and its configuration, renews its token, and "
    "releases the addresses of deleted pods. exec, so that SIGTERM reaches the control loop.",
    "spec.template.spec.containers[0].resources": "The control loop holds this node's pods and all attachments "
    "and pools of the cluster in memory.",
}
_RECONCILER_NOTES = {
    "spec.strategy": "Never two pods at the same time: there is no leader election.",
    "spec.template.spec.containers[0].resources": "It lists all pods of the cluster in one response.",
}


def _daemon_set(image: str) -> dict[str, Any]:
    container = {
        "name": _NAME,
        "image": image,
        "command": ["/bin/sh"],
        "args": ["-c", _START],
        "env": [
            from_field("NODENAME", "spec.nodeName"),
            from_field("WHEREABOUTS_NAMESPACE", "metadata.namespace"),
        ],
        "readinessProbe": {
            "exec": {"command": ["/bin/sh", "-c", f"[ -s {_INSTALLED} ] && [ -x {_PLUGIN} ]"]},
            "periodSeconds": 5,
        },
        "resources": resources("50m", "100Mi", "1", "512Mi"),
        "securityContext": {"privileged": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("cnibin", "/host/opt/cni/bin"), mount("cni-net-dir", "/host/etc/cni/net.d")],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": _NAME, "namespace": SYSTEM, "labels": {"tier": "node", "app": _NAME}},
        "spec": {
            "selector": {"matchLabels": {"name": _NAME}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "serviceAccountName": _NAME,
                    "hostNetwork": True,
                    "priorityClassName": "system-node-critical",
                    "terminationGracePeriodSeconds": 10,
                    "tolerations": EVERYWHERE,
                    "containers": [container],
                    "volumes": [
                        host_path("cnibin", "/opt/cni/bin"),
                        host_path("cni-net-dir", "/etc/cni/net.d"),
                    ],
                },
            },
        },
    }


def _reconciler(image: str) -> dict[str, Any]:
    container = {
        "name": _RECONCILER,
        "image": image,
        "command": ["/ip-reconciler"],
        "args": ["-log-level", "verbose"],
        "env": [from_field("WHEREABOUTS_NAMESPACE", "metadata.namespace")],
        "resources": resources("10m", "100Mi", "1", "1Gi"),
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("cron-schedule", "/cron-schedule", readOnly=True)],
    }
    schedule = {"name": _CONFIG, "items": [{"key": "cron-expression", "path": "config"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _RECONCILER, "namespace": SYSTEM, "labels": _RECONCILER_LABELS},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"name": _RECONCILER}},
            "template": {
                "metadata": {"labels": _RECONCILER_LABELS},
                "spec": {
                    "serviceAccountName": _NAME,
                    "priorityClassName": "system-cluster-critical",
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65534,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
                    "containers": [container],
                    "volumes": [{"name": "cron-schedule", "configMap": schedule}],
                },
            },
        },
    }
