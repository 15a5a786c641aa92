"""The catalog of manifests: the objects and the head comment of each, and the files in ``manifests/``."""

from __future__ import annotations

from torchnet.k8s.addons import egress_policy, example_pods, multus, network_attachment, rbac, whereabouts
from torchnet.k8s.addons.addon_options import BACKEND, EXAMPLE, MULTUS, POLICY, RBAC, WHEREABOUTS, Options
from torchnet.yaml_io import Manifest

FILES = {
    "multus-install.yaml": ("multus-install",),
    "whereabouts-install.yaml": ("whereabouts-install",),
    "backend-network-nad.yaml": ("backend-network",),
    "backend-network-macvlan-nad.yaml": ("backend-network", "--type", "macvlan"),
    "backend-network-bridge-nad.yaml": ("backend-network", "--type", "bridge", "--mtu", "9000"),
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
    "network-policy.yaml": ("network-policy",),
}


SUMMARIES = {
    MULTUS: "Multus: additional network interfaces for pods",
    WHEREABOUTS: "Whereabouts: cluster-wide IP addresses for these interfaces",
    BACKEND: "the network attachment of the backend network (net1)",
    EXAMPLE: "pods that train over net1 with a stock PyTorch image",
    RBAC: "what an administrator grants, so that users with the role edit can launch",
    POLICY: "egress that torchnet's pods need where a namespace denies it by default",
}


def render(name: str, options: Options) -> tuple[list[Manifest], str]:
    """Return the objects of a manifest and its head comment.

    ``name`` is one of `torchnet.k8s.addons.addon_options.NAMES`.
    """
    if name == MULTUS:
        return multus.manifests(options), multus.HEAD
    if name == WHEREABOUTS:
        return whereabouts.manifests(options), whereabouts.HEAD
    if name == BACKEND:
        return network_attachment.manifests(options), network_attachment.head(options)
    if name == EXAMPLE:
        return example_pods.manifests(options), example_pods.head(options)
    if name == POLICY:
        return egress_policy.manifests(options), egress_policy.HEAD
    assert name == RBAC
    return rbac.manifests(options), rbac.HEAD
