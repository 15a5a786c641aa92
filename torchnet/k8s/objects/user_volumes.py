"""The volumes of ``--volume`` in a worker's pod, and their mounts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torchnet.config.volume_syntax import Volume, parse_volumes
from torchnet.k8s.objects.builders import mount


def volumes(texts: Iterable[str], claims: Mapping[str, str], secret_mode: int) -> list[dict[str, Any]]:
    """Return the entries for the pod's ``volumes``; a claim that is mounted several times has one.

    Args:
        claims: By claim, the name of a volume that the pod has already.
        secret_mode: Of the files of Secrets.
    """
    by_name: dict[str, list[Volume]] = {}
    for volume in parse_volumes(texts, claims):
        if volume.name not in claims.values():
            by_name.setdefault(volume.name, []).append(volume)
    return [
        _entry(same[0], secret_mode, read_only=all(one.read_only for one in same))
        for same in by_name.values()
    ]


def mounts(texts: Iterable[str], claims: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the entries for the container's ``volumeMounts``; ``claims`` as in `volumes`."""
    return [
        mount(
            one.name,
            one.path,
            **({"subPath": one.sub_path} if one.sub_path else {}),
            **({"readOnly": True} if one.read_only else {}),
        )
        for one in parse_volumes(texts, claims)
    ]


def _entry(volume: Volume, secret_mode: int, *, read_only: bool) -> dict[str, Any]:
    source: dict[str, Any]
    if volume.kind == "pvc":
        claim: dict[str, Any] = {"claimName": volume.source}
        source = {"persistentVolumeClaim": claim | ({"readOnly": True} if read_only else {})}
    elif volume.kind == "configmap":
        source = {"configMap": {"name": volume.source}}
    elif volume.kind == "secret":
        source = {"secret": {"secretName": volume.source, "defaultMode": secret_mode}}
    elif volume.kind == "hostpath":
        source = {"hostPath": {"path": volume.source}}
    elif volume.kind == "csi":
        source = {"csi": _csi(volume)}
    else:
        source = {"emptyDir": {"sizeLimit": volume.source} if volume.source else {}}
    return {"name": volume.name, **source}


def _csi(volume: Volume) -> dict[str, Any]:
    csi: dict[str, Any] = {"driver": volume.source}
    if volume.read_only:
        csi["readOnly"] = True
    if volume.fs_type:
        csi["fsType"] = volume.fs_type
    if volume.publish_secret:
        csi["nodePublishSecretRef"] = {"name": volume.publish_secret}
    return csi | ({"volumeAttributes": dict(volume.attributes)} if volume.attributes else {})
