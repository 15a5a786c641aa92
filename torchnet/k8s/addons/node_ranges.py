"""Gives each node its own part of the range, in a file that a DaemonSet writes.

A NetworkAttachmentDefinition is the same on all nodes, and no IPAM plugin divides an IPv6 range among them
(Whereabouts panics with ``node_slice_size``). If the object has no spec, Multus reads the configuration of that name
from a folder of the node (multi-net-spec 1.3, 4.1.2), so that each node can have its own.

The files differ only in the node's addresses, so the ConfigMap holds one template and a table of the nodes. With a file
for each node, 400 nodes exceeded the limit of `kubectl apply`, and 1,700 that of a ConfigMap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchnet.k8s.addons import images
from torchnet.k8s.addons.addon_options import Options
from torchnet.k8s.objects.builders import EVERYWHERE, SYSTEM, from_field, host_path, mount, resources
from torchnet.yaml_io import Manifest

FOLDER = "/etc/cni/multus/net.d"

NODES, TEMPLATE = "nodes", "template.conflist"  # keys of the ConfigMap

# An awk program that gets the node's name, the table and the template. Names are compared as text even if they look
# like numbers (1e3, 1000). The kubelet may replace both files after awk has read one of them: a placeholder can then
# remain, which gives exit code 2. An empty or unreadable file gives 1 or 2, a node that is not in the table 3.
FILL = """\
BEGIN { code = 2 }
NR == 1 { for (i = 2; i <= NF; i++) place[i] = "@" $i "@" }
FILENAME == ARGV[1] { if ($1 "" == node) { found = 1; for (i in place) value[i] = $i } next }
!found { if (NR > FNR) code = 3; exit }
{ for (i in place) gsub(place[i], value[i]) }
/@[A-Z]+@/ { code = 2; exit }
{ code = 0; print }
END { exit code }
"""
_FILLED = f'awk -v node="$NODE_NAME" "$FILL" "$SLICES/{NODES}" "$SLICES/{TEMPLATE}"'
# In the l3 modes with gateways: an awk program that prints each other node's range and gateway, columns 2 and 3. A
# route that is there is left alone: replacing it would make the kernel look up all connections' routes anew.
OTHERS = 'NR > 1 && $1 "" != node && NF > 2 { print $2, $3 }'
_ROUTES = f"""\
  awk -v node="$NODE_NAME" "$OTHERS" "$SLICES/{NODES}" | while read -r part via; do
    case $part in *:*) family=-6 ;; *) family=-4 ;; esac
    [ -n "$(ip "$family" route list "$part" via "$via" dev "$CARD")" ] ||
      {{ ip "$family" route replace "$part" via "$via" dev "$CARD" && echo "route to $part via $via"; }}
  done
"""
# An awk program that gets the node's routes, with table=0, and then the table, with table=1. Its exit code is 1 if a
# route that `OTHERS` prints is missing. One `ip` for each route would take longer than a probe has, with many nodes.
ROUTED = """\
!table { have[$1 " " $3] = 1; next }
FNR > 1 && $1 "" != node && NF > 2 && !(($2 " " $3) in have) { missing = 1 }
END { exit missing }
"""
_HAS_FILE = f'{_FILLED} | cmp -s - "$TARGET"'
_HAS_ROUTES = (
    '{ ip -4 route list dev "$CARD"; ip -6 route list dev "$CARD"; } | '
    f'awk -v node="$NODE_NAME" "$ROUTED" table=0 - table=1 "$SLICES/{NODES}"'
)
# The file has another extension until it is complete: Multus reads every file that ends in .conflist. It is removed
# when the node no longer has a part of the range: the addresses may belong to another node by then.
_SCRIPT = f"""\
trap 'exit 0' TERM
while :; do
@ROUTES@\
  text=$({_FILLED})
  case $? in
  0)
    if ! printf '%s\\n' "$text" | cmp -s - "$TARGET"; then
      printf '%s\\n' "$text" >"$TARGET.new" && mv -f "$TARGET.new" "$TARGET" && echo "$TARGET is written"
    fi
    ;;
  3)
    echo "no part of the range is given to $NODE_NAME"
    [ ! -e "$TARGET" ] || {{ rm -f "$TARGET" && echo "$TARGET is removed"; }}
    ;;
  *)
    echo "$SLICES cannot be read, and $TARGET stays as it is"
    ;;
  esac
  sleep 10 & wait $!
done
"""


def manifests(options: Options, template: str, parts: Mapping[str, Mapping[str, str]]) -> list[Manifest]:
    """Return the ConfigMap, and the DaemonSet that writes each node's own file.

    Args:
        template: The file, with a placeholder ``@NAME@`` for each value that differs between nodes.
        parts: For each node, its values by NAME; all nodes have the same names.
    """
    name = f"{options.name}-slices"
    columns = next(iter(parts.values()))
    rows = [("NODE", *columns), *((node, *values.values()) for node, values in parts.items())]
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": SYSTEM},
        "data": {TEMPLATE: template, NODES: "".join(f"{' '.join(row)}\n" for row in rows)},
    }
    notes = _NOTES | ({"": f"{_NOTES['']} {_ROUTE_NOTE}"} if options.routes else {})
    return [Manifest(config_map, _MAP_NOTES), Manifest(_daemon_set(options, name), notes)]


_MAP_NOTES = {"": "The file of each node is the template, filled with the row of the node."}
_NOTES = {
    "": "A node without a range has no file, and its pod is not Ready. The log of the pod says so.",
    "spec.template.spec.containers[0].image": "Only its shell is used.",
}
_ROUTE_NOTE = "Nor is that of a node that lacks one of the routes."


def _daemon_set(options: Options, name: str) -> dict[str, Any]:
    labels = {"tier": "node", "app": name}
    routes = [
        {"name": "OTHERS", "value": OTHERS},
        {"name": "ROUTED", "value": ROUTED},
        {"name": "CARD", "value": options.master},
    ]
    probe = f"{_HAS_FILE} && {_HAS_ROUTES}" if options.routes else _HAS_FILE
    script = _SCRIPT.replace("@ROUTES@", _ROUTES if options.routes else "")
    container = {
        "name": "copy",
        "image": images.at(images.WHEREABOUTS, options.registry),
        "command": ["/bin/sh", "-c", script],
        "env": [
            from_field("NODE_NAME", "spec.nodeName"),
            {"name": "SLICES", "value": "/slices"},
            {"name": "FILL", "value": FILL},
            {"name": "TARGET", "value": f"/host{FOLDER}/{options.name}.conflist"},
            *(routes if options.routes else []),
        ],
        "readinessProbe": {
            "exec": {"command": ["/bin/sh", "-c", probe]},
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
