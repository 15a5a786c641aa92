"""Manifests with the options that the tests try, and what is in their objects."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchnet.k8s.addons import node_ranges
from torchnet.k8s.addons.addon_options import BACKEND, EXAMPLE, MULTUS, POLICY, RBAC, WHEREABOUTS, parse
from torchnet.k8s.addons.catalog import render

Object = dict[str, Any]
SLICES = ["node1=fcbb:0:800:ffff:1::/80", "node2.example=fcbb:0:800:ffff:2::/80"]
CASES: list[tuple[str, dict[str, Any]]] = [
    (MULTUS, {}),
    (MULTUS, {"namespace_isolation": True, "global_namespaces": ["shared", "networks"]}),
    (POLICY, {"namespace": "ml"}),
    (WHEREABOUTS, {}),
    (RBAC, {"namespace": "ml"}),
    *((BACKEND, {"type": kind}) for kind in ("ipvlan", "macvlan", "bridge")),
    *((BACKEND, {"type": "macvlan", "mode": mode}) for mode in ("private", "vepa")),
    *((BACKEND, {"mode": mode, "slices": SLICES}) for mode in ("l2", "l3", "l3s")),
    *((BACKEND, {"type": kind, "slices": SLICES}) for kind in ("macvlan", "bridge")),
    (BACKEND, {"ipam": "static", "name": "a" * 56, "namespace": "b" * 63}),
    (BACKEND, {"range": "10.0.0.0/24", "mtu": "1500", "exclude": ["10.0.0.0/28", "10.0.0.7/32"]}),
    (BACKEND, {"range": "10.0.0.0/24", "slices": ["a=10.0.0.0/25", "b=10.0.0.128/25"]}),
    (BACKEND, {"log_file": "/var/log/whereabouts.log", "master": "bond0.100"}),
    (EXAMPLE, {}),
    (EXAMPLE, {"namespace": "ml", "network": "networks/rail-1", "workers": "1"}),
    (EXAMPLE, {"namespace": "ml", "network": "rail-1", "workers": "100"}),
    (EXAMPLE, {"ipam": "static", "range": "10.1.0.0/16"}),
    (EXAMPLE, {"run_as": "namespace"}),
    (EXAMPLE, {"run_as": "5001:0", "fs_group": "7"}),
    (EXAMPLE, {"ipam": "static", "network": "backend-network-static", "namespace": "ml"}),
]
IDS = [f"{name} {' '.join(f'{k}={v}' for k, v in given.items())}"[:60] for name, given in CASES]


def objects(name: str, given: dict[str, Any]) -> list[Object]:
    return [dict(manifest.body) for manifest in render(name, parse(name, given))[0]]


def nodes_of(config_map: Object) -> list[str]:
    """The nodes that a ConfigMap of slices has a row for."""
    head, *rows = config_map["data"][node_ranges.NODES].splitlines()
    assert head.split()[0] == "NODE"
    return [row.split()[0] for row in rows]


def file_of(config_map: Object, node: str) -> str:
    """A node's file as its pod makes it of the ConfigMap: by the same program."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in config_map["data"].items():
            (Path(folder) / name).write_text(text)
        return subprocess.run(
            ["awk", "-v", f"node={node}", node_ranges.FILL, node_ranges.NODES, node_ranges.TEMPLATE],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout


def pod_specs(body: Object) -> Iterator[Object]:
    if body["kind"] == "Pod":
        yield body["spec"]
    elif body["kind"] in ("DaemonSet", "Deployment"):
        yield body["spec"]["template"]["spec"]


def containers(body: Object) -> Iterator[Object]:
    for spec in pod_specs(body):
        yield from (*spec["containers"], *spec.get("initContainers", []))
