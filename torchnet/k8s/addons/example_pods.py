"""pytorch-pod-example: plain pods that train together over net1, on a stock PyTorch image.

The pods do not use torchnet: they show, step by step, what training needs from a second network. To find rank 0's
address on it, an init container by default reads the pods' network-status from the API server. Only this container has
a token, whose permissions are limited to these pods. This works with any IPAM plugin. With fixed addresses
(``--ipam static``) the pods contain the address and need no permissions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torchnet.constants import DEFAULT_MASTER_PORT, NETWORKS_ANNOTATION, rail_interface
from torchnet.k8s.addons import images
from torchnet.k8s.addons.addon_options import Options
from torchnet.k8s.addons.ip_ranges import upper_half
from torchnet.k8s.objects.builders import (
    api_access,
    binding,
    mount,
    resources,
    role,
    rule,
    service_account,
)
from torchnet.k8s.objects.security_context import RESTRICTED, pod_context
from torchnet.yaml_io import Manifest

NAME = "pytorch-example"
FIRST = "pytorch-training"
_LABELS = {"app": NAME}
_SCRIPTS = Path(__file__).parent / "example_scripts"
_TOKEN = "/var/run/secrets/torchnet"
_INTERFACE = rail_interface(0)


def head(options: Options) -> str:
    """Return the manifest's head comment: what a reader should know about the pods."""
    namespace, network = options.network
    pods = ", ".join(_names(options)[:3])
    return (
        f"Pods that train over {_INTERFACE}, the attachment {namespace}/{network}: {pods}"
        f"{', ...' if options.workers > 2 else ''}.\n"
        "They are Ready once the training has finished, and run for 15 more minutes, so that you can inspect them. "
        f"To end a pod at once:\n  kubectl exec -n {options.namespace} POD -- touch /tmp/done"
    )


def manifests(options: Options) -> list[Manifest]:
    """Return the scripts, the RBAC objects if they are needed, and the pods."""
    scripts = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": options.namespace, "labels": _LABELS},
        "data": {path.name: path.read_text(encoding="utf-8") for path in sorted(_SCRIPTS.glob("*.py"))},
    }
    rights = [] if options.ipam == "static" else _rights(options)
    pods = [Manifest(_pod(options, rank), _notes(options, rank)) for rank in range(options.workers + 1)]
    return [Manifest(scripts), *rights, *pods]


def _names(options: Options) -> list[str]:
    return [FIRST, *(f"pytorch-worker-{number}" for number in range(options.workers))]


def _addresses(options: Options) -> list[str]:
    """Return the fixed addresses, with the prefix length that the CNI plugins require.

    They are from the range's upper half: Whereabouts allocates the lowest addresses, and does not know about these.
    """
    half = upper_half(options.range)
    return [
        f"{half.network_address + 1 + rank}/{options.range.prefixlen}" for rank in range(options.workers + 1)
    ]


def _rights(options: Options) -> list[Manifest]:
    namespace = options.namespace
    rules = [rule([""], ["pods"], ["get"], resourceNames=_names(options))]
    objects = [
        service_account(NAME, namespace) | {"automountServiceAccountToken": False},
        role(NAME, rules, namespace),
        binding(NAME, NAME, (NAME, namespace), namespace),
    ]
    return [Manifest(body | {"metadata": body["metadata"] | {"labels": _LABELS}}) for body in objects]


def _notes(options: Options, rank: int) -> dict[str, str]:
    if rank:
        return {}
    notes = {
        f"metadata.annotations.{NETWORKS_ANNOTATION}": "The interface is named explicitly. By default, Multus numbers "
        "net1, net2 ... over all networks of the pod, including the cluster's own.",
        "spec.containers[0].env[3]": "Gloo needs the exact name, NCCL needs `=` before it: net1 alone also "
        "matches net10.",
        "spec.containers[0].env[5]": "One thread for one CPU: the default of PyTorch is one per core of the node.",
        "spec.containers[0].readinessProbe": "A pod is Ready once its training has finished.",
        "spec.containers[0].volumeMounts": "/etc/hosts contains the net1 addresses of all pods: the PyTorch store "
        "looks up the name of each address that connects to it, and a slow name server would delay it.",
        "spec.initContainers": "Ends once all pods have an address on net1. Only this container has the token.",
        "spec.topologySpreadConstraints": "Evenly over the nodes if possible: net1 carries the traffic between them.",
    }
    if options.ipam == "static":
        notes["spec.initContainers"] = (
            "Waits for duplicate address detection: the kernel checks an IPv6 address before it can be used."
        )
        notes["spec.hostAliases"] = notes.pop("spec.containers[0].volumeMounts")
    return notes


def _pod(options: Options, rank: int) -> dict[str, Any]:
    static = options.ipam == "static"
    namespace, network = options.network
    name, addresses = _names(options)[rank], _addresses(options)
    attachment: dict[str, Any] = {"name": network, "namespace": namespace, "interface": _INTERFACE}
    if static:
        attachment["ips"] = [addresses[rank]]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 3600,
        "terminationGracePeriodSeconds": 5,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": pod_context(options.user),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _LABELS},
            }
        ],
    }
    if static:
        spec["hostAliases"] = [
            {"ip": address.partition("/")[0], "hostnames": [f"{pod}-{_INTERFACE}"]}
            for pod, address in zip(_names(options), addresses, strict=True)
        ]
    else:
        spec["serviceAccountName"] = NAME
    spec |= {
        "initContainers": [_init(options)],
        "containers": [_trainer(options, rank)],
        "volumes": _volumes(static),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": options.namespace,
            "labels": _LABELS,
            "annotations": {
                "kubectl.kubernetes.io/default-container": "pytorch",
                NETWORKS_ANNOTATION: json.dumps([attachment]),
            },
        },
        "spec": spec,
    }


def _image(options: Options) -> str:
    return options.image or images.at(images.PYTORCH, options.registry)


def _init(options: Options) -> dict[str, Any]:
    static = options.ipam == "static"
    command = ["python3", "/example/net.py", *(["wait"] if static else ["discover", *_names(options)])]
    mounts = [mount("example", "/example", readOnly=True)]
    if not static:
        mounts += [mount("job", "/job"), mount("token", _TOKEN, readOnly=True)]
    container: dict[str, Any] = {
        "name": "wait" if static else "discover",
        "image": _image(options),
        "command": command,
    }
    if not static:
        container["env"] = [{"name": "NETWORK", "value": "/".join(options.network)}]
    return container | {
        "resources": resources("50m", "64Mi", "500m", "256Mi"),
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _trainer(options: Options, rank: int) -> dict[str, Any]:
    static = options.ipam == "static"
    variables = {
        "RANK": str(rank),
        "WORLD_SIZE": str(options.workers + 1),
        "MASTER_PORT": str(DEFAULT_MASTER_PORT),
        "GLOO_SOCKET_IFNAME": _INTERFACE,
        "NCCL_SOCKET_IFNAME": f"={_INTERFACE}",
        "OMP_NUM_THREADS": "1",
        "HOME": "/tmp",
        "USER": "pytorch",
        "STAY_SECONDS": "900",
    }
    if static:
        variables["MASTER_ADDR"] = _addresses(options)[0].partition("/")[0]
    mounts = [mount("example", "/example", readOnly=True), mount("tmp", "/tmp"), mount("shm", "/dev/shm")]
    if not static:
        mounts += [
            mount("job", "/job", readOnly=True),
            mount("job", "/etc/hosts", subPath="hosts", readOnly=True),
        ]
    return {
        "name": "pytorch",
        "image": _image(options),
        "command": ["python3", "/example/train.py"],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/trained"]}, "periodSeconds": 2},
        "resources": resources("250m", "512Mi", "1", "2Gi"),
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _volumes(static: bool) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "example", "configMap": {"name": NAME}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
    ]
    if static:
        return volumes
    return [*volumes, {"name": "job", "emptyDir": {"sizeLimit": "1Mi"}}, api_access("token")]
