"""multus-install: Multus (thin), its custom resource and its permissions.

The thick daemon is not used: if the configuration of the primary network is a *list* (as Cilium's is), the daemon
passes a stripped configuration on DEL, and addresses of ended pods leak. Names, labels and the DaemonSet's selector are
those of upstream (deployments/multus-daemonset.yml of v4.3.0), so that applying this manifest over an upstream
installation replaces it in place, and `-l app=multus` finds it.
"""

from __future__ import annotations

from typing import Any

from torchnet.k8s.addons import crds, images
from torchnet.k8s.addons.addon_options import Options
from torchnet.k8s.objects.builders import (
    EVERYWHERE,
    SYSTEM,
    binding,
    host_path,
    mount,
    resources,
    role,
    rule,
    service_account,
)
from torchnet.yaml_io import Manifest

HEAD = """\
Multus CNI v4.3.0, the thin plugin: gives pods further interfaces, as NetworkAttachmentDefinitions say.

Before this: a primary CNI that works. Cilium must run with cni.exclusive=false, else it renames Multus's
configuration away and pods come up without their second interface, without an error."""

_CONTAINER = "spec.template.spec.containers[0]"
_LABELS = {"tier": "node", "app": "multus", "name": "multus"}


def manifests(options: Options) -> list[Manifest]:
    """Return all objects of Multus."""
    rules = [
        rule(["k8s.cni.cncf.io"], ["network-attachment-definitions"], ["get"]),
        rule([""], ["pods"], ["get"]),
        rule([""], ["pods/status"], ["update"]),
        rule(["", "events.k8s.io"], ["events"], ["create", "patch", "update"]),
    ]
    return [
        Manifest(crds.attachments()),
        Manifest(service_account("multus", SYSTEM)),
        Manifest(
            role("multus", rules),
            {
                "": "What the plugin does, and no more: it reads pods and attachments, and writes network-status "
                "through pods/status."
            },
        ),
        Manifest(binding("multus", "multus", ("multus", SYSTEM))),
        Manifest(_daemon_set(images.at(images.MULTUS, options.registry)), _NOTES),
    ]


_NOTES = {
    "spec.minReadySeconds": "The image has no shell to ask for the file; a start that fails ends well before that.",
    "spec.updateStrategy": "A node whose Multus is being replaced refuses new pods for a few seconds.",
    f"{_CONTAINER}.args": "auto: the configuration of the primary CNI, the first one by name, is wrapped into "
    "00-multus.conf or 00-multus.conflist.\n"
    "No --cleanup-config-on-exit: while Multus is away, pods would start without their second interface, and "
    "nobody would be told. Without it the service account's token on the node isn't renewed, either: it is good "
    "for a year (less where the API server says so), and each restart writes a new one:\n"
    "  kubectl -n kube-system rollout restart daemonset/kube-multus-ds",
    f"{_CONTAINER}.resources": "The plugin itself runs on the host for each pod; this process only writes "
    "two files. The room is for the copy of the plugin (60 MB) in the page cache.",
    f"{_CONTAINER}.securityContext": "Writes to the node's directories, which SELinux allows to privileged "
    "containers alone.",
}


def _daemon_set(image: str) -> dict[str, Any]:
    install = {
        "name": "install-multus-binary",
        "image": image,
        "command": ["/install_multus"],
        "args": ["--type", "thin"],
        "resources": resources("10m", "32Mi", "500m", "256Mi"),
        "securityContext": {"privileged": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("cnibin", "/host/opt/cni/bin")],
    }
    run = {
        "name": "kube-multus",
        "image": image,
        "command": ["/thin_entrypoint"],
        "args": [
            "--multus-conf-file=auto",
            "--multus-autoconfig-dir=/host/etc/cni/net.d",
            "--cni-conf-dir=/host/etc/cni/net.d",
        ],
        "resources": resources("10m", "50Mi", "500m", "256Mi"),
        "securityContext": {"privileged": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("cni", "/host/etc/cni/net.d"), mount("cnibin", "/host/opt/cni/bin")],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-multus-ds", "namespace": SYSTEM, "labels": _LABELS},
        "spec": {
            "selector": {"matchLabels": {"name": "multus"}},
            "minReadySeconds": 5,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "serviceAccountName": "multus",
                    "hostNetwork": True,
                    "priorityClassName": "system-node-critical",
                    "terminationGracePeriodSeconds": 10,
                    "tolerations": EVERYWHERE,
                    "initContainers": [install],
                    "containers": [run],
                    "volumes": [host_path("cni", "/etc/cni/net.d"), host_path("cnibin", "/opt/cni/bin")],
                },
            },
        },
    }
