"""Each manifest by its name: its objects, and the comment above them. The same for the same options."""

from __future__ import annotations

from torchnet.manifests import attachment, example, multus, rbac, whereabouts
from torchnet.manifests.emit import Manifest
from torchnet.manifests.options import BACKEND, EXAMPLE, MULTUS, RBAC, WHEREABOUTS, Options

SUMMARIES = {
    MULTUS: "Multus: further interfaces for pods",
    WHEREABOUTS: "Whereabouts: their addresses, cluster-wide",
    BACKEND: "the attachment that gives a pod its net1 on the backend network",
    EXAMPLE: "pods that train over net1, on a stock PyTorch image",
    RBAC: "what an administrator gives, so that people with the role edit can launch",
}


def render(name: str, options: Options) -> tuple[list[Manifest], str]:
    """The objects of the manifest ``name`` (`torchnet.manifests.options.NAMES`), and what they are."""
    if name == MULTUS:
        return multus.manifests(options), multus.HEAD
    if name == WHEREABOUTS:
        return whereabouts.manifests(options), whereabouts.HEAD
    if name == BACKEND:
        return attachment.manifests(options), attachment.head(options)
    if name == EXAMPLE:
        return example.manifests(options), example.head(options)
    assert name == RBAC
    return rbac.manifests(options), rbac.HEAD
