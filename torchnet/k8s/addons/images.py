"""The images of the manifests, each pinned to a version's tag, and their names on a mirror.

Upstream's own manifests use rolling tags (``snapshot``, ``latest``), so that two nodes could run different versions.
"""

from __future__ import annotations

MULTUS = "ghcr.io/k8snetworkplumbingwg/multus-cni:v4.3.0"  # the thin plugin; tags of the thick daemon end in -thick
WHEREABOUTS = "ghcr.io/k8snetworkplumbingwg/whereabouts:v0.9.4"
PYTORCH = "docker.io/pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime"


def at(image: str, registry: str | None) -> str:
    """Return ``image`` with ``registry`` (``registry.example.com/mirror``) in place of its own; None keeps its own.

    The path after the registry does not change, as mirroring tools keep it.
    """
    return f"{registry}/{image.partition('/')[2]}" if registry else image
