"""The images that the manifests name, each pinned by a version's tag, and the same ones at a mirror.

Upstream's own manifests name rolling tags (``snapshot``, ``latest``): two nodes could run two versions.
"""

from __future__ import annotations

MULTUS = "ghcr.io/k8snetworkplumbingwg/multus-cni:v4.3.0"  # thin; the daemon's images end in -thick
WHEREABOUTS = "ghcr.io/k8snetworkplumbingwg/whereabouts:v0.9.4"
PYTORCH = "docker.io/pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime"


def at(image: str, registry: str | None) -> str:
    """``image`` below ``registry`` (``registry.example.com/mirror``) in place of its own; None keeps it.

    The path below the registry stays, as mirroring tools keep it.
    """
    return f"{registry}/{image.partition('/')[2]}" if registry else image
