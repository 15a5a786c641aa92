"""The volumes of ``--volume`` in a worker's pod."""

from __future__ import annotations

from typing import Any

from tests.unit.pod_security import restricted
from tests.unit.rendered import pod_template, render


def spec_of(*volumes: str, **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = pod_template(render(volumes=[*volumes], **more))["spec"]
    return spec


def named(spec: dict[str, Any]) -> dict[str, Any]:
    return {volume["name"]: volume for volume in spec["volumes"]}


def mounted(spec: dict[str, Any]) -> dict[str, Any]:
    return {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}


def test_a_part_of_a_volume_is_mounted() -> None:
    spec = spec_of("pvc:data/imagenet/train:/data:ro", "configmap:c/a.yaml:/etc/a.yaml", "secret:s/key:/k")
    mounts, volumes = mounted(spec), named(spec)
    assert mounts["/data"] == {
        "name": "pvc-data",
        "mountPath": "/data",
        "subPath": "imagenet/train",
        "readOnly": True,
    }
    assert mounts["/etc/a.yaml"]["subPath"] == "a.yaml"
    assert mounts["/k"]["subPath"] == "key"
    assert volumes["pvc-data"]["persistentVolumeClaim"] == {"claimName": "data", "readOnly": True}
    assert volumes["configmap-etc-a-yaml"] == {"name": "configmap-etc-a-yaml", "configMap": {"name": "c"}}


def test_a_driver_makes_a_volume_for_each_pod() -> None:
    spec = spec_of(
        "csi:a.example.org:/a",
        "b=csi:b.example.org,fsType=xfs,nodePublishSecretRef=keys,share=/x,server=h:/b:ro",
    )
    assert named(spec)["csi-a"]["csi"] == {"driver": "a.example.org"}
    assert named(spec)["b"]["csi"] == {
        "driver": "b.example.org",
        "readOnly": True,
        "fsType": "xfs",
        "nodePublishSecretRef": {"name": "keys"},
        "volumeAttributes": {"server": "h", "share": "/x"},
    }
    assert mounted(spec)["/b"] == {"name": "b", "mountPath": "/b", "readOnly": True}
    assert list(restricted(spec)) == []


def test_a_claim_is_one_volume_of_the_pod_however_often_it_is_mounted() -> None:
    spec = spec_of("pvc:a/x:/x:ro", "w=pvc:a/y:/y", "pvc:b:/b:ro")
    claims = [one for one in spec["volumes"] if "persistentVolumeClaim" in one]
    assert claims == [
        {"name": "pvc-x", "persistentVolumeClaim": {"claimName": "a"}},
        {"name": "pvc-b", "persistentVolumeClaim": {"claimName": "b", "readOnly": True}},
    ]
    mounts = mounted(spec)
    assert [(mounts[path]["name"], mounts[path].get("readOnly")) for path in ("/x", "/y")] == [
        ("pvc-x", True),
        ("pvc-x", None),
    ]


def test_so_is_the_claim_of_the_code() -> None:
    spec = spec_of("pvc:a/data:/data", "pvc:a/more:/more:ro", code="pvc:a/src")
    claims = [one for one in spec["volumes"] if "persistentVolumeClaim" in one]
    assert claims == [{"name": "script", "persistentVolumeClaim": {"claimName": "a"}}]
    mounts = mounted(spec)
    assert {mounts[path]["name"] for path in ("/code", "/data", "/more")} == {"script"}
    assert mounts["/data"]["subPath"] == "data"
