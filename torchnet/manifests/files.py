"""The files in manifests/ of the repository: each is what the command with these words prints."""

from __future__ import annotations

FILES = {
    "multus-install.yaml": ("multus-install",),
    "whereabouts-install.yaml": ("whereabouts-install",),
    "backend-network-nad.yaml": ("backend-network",),
    "backend-network-macvlan-nad.yaml": ("backend-network", "--kind", "macvlan"),
    "backend-network-bridge-nad.yaml": ("backend-network", "--kind", "bridge", "--mtu", "9000"),
    "backend-network-static-nad.yaml": (
        "backend-network",
        *("--ipam", "static"),
        *("--name", "backend-network-static"),
    ),
    "backend-network-slices-nad.yaml": (
        "backend-network",
        *("--slice", "node1=fcbb:0:800:ffff:1::/80"),
        *("--slice", "node2=fcbb:0:800:ffff:2::/80"),
    ),
    "backend-network-l3-nad.yaml": (
        "backend-network",
        *("--mode", "l3"),
        *("--range", "fcbb:0:800::/48"),
        *("--slice", "node1=fcbb:0:800:1:1::/80"),
        *("--slice", "node2=fcbb:0:800:2:1::/80"),
    ),
    "pytorch-pod-example.yaml": ("pytorch-pod-example",),
    "pytorch-pod-example-static.yaml": (
        "pytorch-pod-example",
        *("--ipam", "static"),
        *("--network", "backend-network-static"),
    ),
    "rbac.yaml": ("rbac",),
}
