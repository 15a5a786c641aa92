"""backend-network: the attachment that gives a pod its net1, as one object or with a file on each node.

The configuration is a list of plugins (CNI specification 1.0.0): the one that creates the interface, then for IPv6 the
tuning plugin. It always sets ``cniVersion``: without it (or below 0.3.0) a pod gets its net1, but Multus writes no
network-status entry for it.
"""

from __future__ import annotations

import json
from typing import Any

from torchnet.k8s.addons import node_ranges
from torchnet.k8s.addons.addon_options import ROUTED, Options, Slice
from torchnet.k8s.addons.ip_ranges import ends
from torchnet.network.path_diagnosis import placeholder, route_command
from torchnet.yaml_io import Manifest

CNI_VERSION = "1.0.0"


def head(options: Options) -> str:
    """Return the manifest's head comment: what a reader should know about the attachment."""
    where = (
        f"a port of {options.bridge}" if options.type == "bridge" else f"{options.mode} on {options.master}"
    )
    lines = [f"{options.name}: net1 of a pod, {options.type}, {where}.", ""]
    if options.type == "ipvlan" and options.mode == "l2":
        lines.append(
            f"{options.master} of all nodes must share one layer-2 segment. If there are routers between them:"
        )
        lines.append("  torchnet manifests backend-network --mode l3 --slice NODE=CIDR ...")
    if options.type == "macvlan":
        lines.append(
            f"Each pod has its own MAC address on {options.master}. Hypervisors and clouds often filter these; use "
            "ipvlan there. One network card cannot have both ipvlan and macvlan."
        )
    if options.type == "bridge":
        lines.append(
            f"The network card of each node must be a port of {options.bridge}. Otherwise pods reach only their own "
            "node."
        )
    if options.mode in ROUTED:
        if options.routes:
            lines.append("The DaemonSet adds these routes on the other nodes:")
        else:
            lines.append(
                "Each node, or the fabric between the nodes, needs a route to the range of each other node:"
            )
        lines += [f"  {_route(one, options.master)}" for one in options.slices]
    if options.ipam == "static":
        lines.append(
            f'Pods request their address with its prefix length: "ips": ["ADDRESS/{options.range.prefixlen}"].'
        )
    return "\n".join(lines)


def _route(one: Slice, card: str) -> str:
    """Return the command that adds the route to the part of a node; it is to be run on the other nodes."""
    return route_command(str(one.part), str(one.via or placeholder(one.node)), card)


def manifests(options: Options) -> list[Manifest]:
    """Return the attachment; with slices, also the objects that write each node's own file."""
    body: dict[str, Any] = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": options.name, "namespace": options.namespace},
    }
    if options.slices:
        parts = {one.node: own(options, one) for one in options.slices}
        note = (
            f"No spec: the configuration is a file on each node, {node_ranges.FOLDER}/{options.name}.conflist, because "
            "each node has its own range. Multus finds the file by the name inside it."
        )
        return [Manifest(body, {"metadata": note}), *node_ranges.manifests(options, config(options), parts)]
    return [Manifest(body | {"spec": {"config": config(options)}})]


def own(options: Options, one: Slice) -> dict[str, str]:
    """Return the values of the placeholders in `config` for a node, by placeholder name; VIA is for its routes."""
    if options.mode in ROUTED:
        return {"SUBNET": str(one.part)} | ({"VIA": str(one.via)} if one.via else {})
    first, last = ends(one.part, options.range)
    return {"FIRST": str(first), "LAST": str(last)}


def config(options: Options) -> str:
    """Return the CNI configuration as JSON text; with slices, it has ``@NAME@`` placeholders where nodes differ."""
    plugin = _plugin(options)
    if options.mtu is not None:
        plugin["mtu"] = options.mtu
    if options.ipam == "static":
        # With this capability, the annotation's "ips" are passed in the runtimeConfig.
        plugin["capabilities"] = {"ips": True}
    plugin["ipam"] = _ipam(options)
    plugins = [plugin]
    if options.range.version == 6:
        # accept_ra: a router advertisement on the backend must add neither addresses nor a default route
        # (CVE-2020-10749). ndisc_notify: announces an address that has moved to another pod, since peers would
        # otherwise send to the old pod for up to 50 s. Not for IPv4: if IPv6 is disabled on a node, these files are
        # missing and the tuning plugin fails.
        settings = {"accept_ra": "0", "ndisc_notify": "1"}
        sysctl = {f"net.ipv6.conf.IFNAME.{name}": value for name, value in settings.items()}
        plugins.append({"type": "tuning", "sysctl": sysctl})
    return json.dumps({"cniVersion": CNI_VERSION, "name": options.name, "plugins": plugins}, indent=2) + "\n"


def _plugin(options: Options) -> dict[str, Any]:
    if options.type == "bridge":
        return {"type": "bridge", "bridge": options.bridge}
    return {"type": options.type, "master": options.master, "mode": options.mode}


def _ipam(options: Options) -> dict[str, Any]:
    if options.ipam == "static":
        return {"type": "static"}
    if not options.slices:
        ipam: dict[str, Any] = {"type": "whereabouts", "range": str(options.range)}
        if options.exclude:
            ipam["exclude"] = [str(one) for one in options.exclude]
        if options.log_file:
            ipam |= {"log_file": options.log_file, "log_level": "debug"}
        return ipam
    if options.mode in ROUTED:
        # Pods of other nodes are not on this link: a route leads to them, and the node forwards.
        return {
            "type": "host-local",
            "ranges": [[{"subnet": "@SUBNET@"}]],
            "routes": [{"dst": str(options.range)}],
        }
    # All pods are on one link: the subnet is the whole range, and each node allocates from its own part.
    return {
        "type": "host-local",
        "ranges": [[{"subnet": str(options.range), "rangeStart": "@FIRST@", "rangeEnd": "@LAST@"}]],
    }
