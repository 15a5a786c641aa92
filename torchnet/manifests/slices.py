"""Each node's own part of the range, brought to it as a file by a DaemonSet.

A NetworkAttachmentDefinition is the same on all nodes, and no IPAM plugin divides an IPv6 range among them
(Whereabouts' ``node_slice_size`` panics there). Where the object has no spec, Multus takes the configuration of
that name from a folder of the node (multi-net-spec 1.3, 4.1.2): so each node can have its own.
"""

from __future__ import annotations

from typing import Any

from torchnet.manifests import images
from torchnet.manifests.emit import Manifest
from torchnet.manifests.options import Options
from torchnet.manifests.parts import EVERYWHERE, SYSTEM, from_field, host_path, mount, resources

FOLDER = "/etc/cni/multus/net.d"

# The copy lies under another ending until it is whole: Multus reads whatever ends in .conflist.
_SCRIPT = """\
trap 'exit 0' TERM
while :; do
  if [ ! -e "$SOURCE" ]; then
    echo "no part of the range is given to $NODE_NAME"
  elif ! cmp -s "$SOURCE" "$TARGET"; then
    cp "$SOURCE" "$TARGET.new" && mv -f "$TARGET.new" "$TARGET" && echo "$TARGET is written"
  fi
  sleep 10 & wait $!
done
"""


def manifests(options: Options, files: dict[str, str]) -> list[Manifest]:
    """The ConfigMap with all nodes' ``files`` (text by node), and the DaemonSet that writes each node's own."""
    name = f"{options.name}-slices"
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": SYSTEM},
        "data": {f"{node}.conflist": text for node, text in files.items()},
    }
    return [Manifest(config_map), Manifest(_daemon_set(options, name), _NOTES)]


_NOTES = {
    "": "A node that is given no part of the range is not Ready here, and says so in its log.",
    "spec.template.spec.containers[0].image": "For its shell alone.",
}


def _daemon_set(options: Options, name: str) -> dict[str, Any]:
    labels = {"tier": "node", "app": name}
    container = {
        "name": "copy",
        "image": images.at(images.WHEREABOUTS, options.registry),
        "command": ["/bin/sh", "-c", _SCRIPT],
        "env": [
            from_field("NODE_NAME", "spec.nodeName"),
            {"name": "SOURCE", "value": "/slices/$(NODE_NAME).conflist"},
            {"name": "TARGET", "value": f"/host{FOLDER}/{options.name}.conflist"},
        ],
        "readinessProbe": {
            "exec": {"command": ["/bin/sh", "-c", 'cmp -s "$SOURCE" "$TARGET"']},
            "periodSeconds": 10,
        },
        "resources": resources("10m", "16Mi", "100m", "64Mi"),
        "securityContext": {"privileged": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("slices", "/slices", readOnly=True), mount("multus", f"/host{FOLDER}")],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": SYSTEM, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "priorityClassName": "system-node-critical",
                    "terminationGracePeriodSeconds": 5,
                    "hostNetwork": True,
                    "tolerations": EVERYWHERE,
                    "containers": [container],
                    "volumes": [
                        {"name": "slices", "configMap": {"name": name}},
                        host_path("multus", FOLDER),
                    ],
                },
            },
        },
    }
