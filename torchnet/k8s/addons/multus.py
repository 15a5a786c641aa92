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
Multus CNI v4.3.0, the thin plugin: adds the network interfaces that NetworkAttachmentDefinitions describe to pods.

Requires a working primary CNI. Cilium must run with cni.exclusive=false. Otherwise it renames the configuration of
Multus, and pods start without their second interface and without an error."""

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
                "": "Least privilege: the plugin reads pods and attachments, and writes network-status through "
                "pods/status."
            },
        ),
        Manifest(binding("multus", "multus", ("multus", SYSTEM))),
        Manifest(
            _daemon_set(images.at(images.MULTUS, options.registry), _isolation(options)), _notes(options)
        ),
    ]


_NOTES = {
    "spec.minReadySeconds": "The image has no shell for a readiness probe. A start that fails ends earlier than this.",
    "spec.updateStrategy": "A node cannot start pods for a few seconds while its Multus is replaced.",
    f"{_CONTAINER}.args": "auto: wraps the configuration of the primary CNI, the first one by name, into "
    "00-multus.conf or 00-multus.conflist.\n"
    "No --cleanup-config-on-exit: while Multus is down, pods would start without their second interface and "
    "without an error. Without it, the service account token on the node is not renewed: it is valid for a year, "
    "or less if the API server limits it, and each restart writes a new one:\n"
    "  kubectl -n kube-system rollout restart daemonset/kube-multus-ds",
    f"{_CONTAINER}.resources": "The plugin runs on the host for each pod. This process only writes two "
    "files. The memory is for the copy of the plugin (60 MB) in the page cache.",
    f"{_CONTAINER}.securityContext": "Writes to directories of the node, which SELinux allows only for "
    "privileged containers.",
}


def _notes(options: Options) -> dict[str, str]:
    if not options.namespace_isolation:
        return _NOTES
    arguments = f"{_CONTAINER}.args"
    return _NOTES | {
        arguments: f"{_NOTES[arguments]}\n"
        "--namespace-isolation: a pod that names an attachment of another namespace does not start; attachments of the "
        "global namespaces are for all pods."
    }


def _isolation(options: Options) -> list[str]:
    """Return the arguments that restrict pods to attachments of their own namespace and of the global ones.

    Without ``--global-namespaces``, Multus takes the namespace default for global.

    Source:
        multus-cni v4.3.0, cmd/thin_entrypoint and pkg/k8sclient (isValidNamespaceReference).
    """
    if not options.namespace_isolation:
        return []
    names = (
        [f"--global-namespaces={','.join(options.global_namespaces)}"] if options.global_namespaces else []
    )
    return ["--namespace-isolation=true", *names]


def _daemon_set(image: str, isolation: list[str]) -> dict[str, Any]:
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
            *isolation,
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
