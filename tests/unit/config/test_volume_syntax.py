"""The notation of ``--volume``: parts of volumes, and volumes of CSI drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.asked_kubernetes import asked, wrong
from torchnet.config.volume_syntax import Volume, parse_volume, parse_volume_list

DRIVER = "inline.storage.kubernetes.io"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pvc:data:/d", Volume("pvc-d", "pvc", "data", "/d")),
        ("pvc:data/a/b:/d:ro", Volume("pvc-d", "pvc", "data", "/d", read_only=True, sub_path="a/b")),
        ("pvc:data//a/./b/:/d", Volume("pvc-d", "pvc", "data", "/d", sub_path="a/b")),
        ("v=pvc:data/a=b:/d", Volume("v", "pvc", "data", "/d", sub_path="a=b")),
        (
            "configmap:c/key.yaml:/etc/key.yaml",
            Volume("configmap-etc-key-yaml", "configmap", "c", "/etc/key.yaml", True, "key.yaml"),
        ),
        ("secret:s/key:/k", Volume("secret-k", "secret", "s", "/k", True, "key")),
        (f"csi:{DRIVER}:/d", Volume("csi-d", "csi", DRIVER, "/d")),
        (f"csi:{DRIVER}:/d:ro", Volume("csi-d", "csi", DRIVER, "/d", read_only=True)),
        (
            "s=csi:Secrets-Store.csi.k8s.io,secretProviderClass=a:/d",
            Volume("s", "csi", "Secrets-Store.csi.k8s.io", "/d", attributes=(("secretProviderClass", "a"),)),
        ),
        (
            f"csi:{DRIVER},server=10.0.0.1,share=/a:b,empty=:/d",
            Volume(
                *("csi-d", "csi", DRIVER, "/d"),
                attributes=(("empty", ""), ("server", "10.0.0.1"), ("share", "/a:b")),
            ),
        ),
        (
            f"csi:{DRIVER},options=a,b,url=s3://x=y:/d",
            Volume(*("csi-d", "csi", DRIVER, "/d"), attributes=(("options", "a,b"), ("url", "s3://x=y"))),
        ),
        (
            f"csi:{DRIVER},fsType=ext4,nodePublishSecretRef=keys,a=b:/d",
            Volume(
                *("csi-d", "csi", DRIVER, "/d"),
                attributes=(("a", "b"),),
                fs_type="ext4",
                publish_secret="keys",
            ),
        ),
    ],
    ids=str,
)
def test_what_is_understood(text: str, found: Volume) -> None:
    assert parse_volume(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "pvc:data/:/d",
        "pvc:data/..:/d",
        "pvc:data/a/../..:/d",
        "pvc:data/a\nb:/d",
        "pvc:/a:/d",
        "secret:s/:/k",
        "emptydir:/a/b:/c",
        f"csi:{DRIVER}",
        "csi::/d",
        "csi:a_b:/d",
        f"csi:{'a' * 64}:/d",
        f"csi:{DRIVER},a:/d",
        f"csi:{DRIVER},a=1,a=2:/d",
        f"csi:{DRIVER},nodePublishSecretRef=A:/d",
        f"csi:{DRIVER},a=\0:/d",
        f"csi:{DRIVER}:relative",
        "pvc:a:/a,b",
    ],
    ids=ascii,
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(ValueError):
        parse_volume(text)


def test_one_text_may_hold_several(tmp_path: Path) -> None:
    """A variable cannot repeat; the commas of a driver's attributes are its own."""
    texts = ["pvc:a/b:/a", f"c=csi:{DRIVER},x=1,y=2:/c", "emptydir:/e"]
    assert parse_volume_list(", ".join(texts)) == tuple(texts)
    environ = {"TORCHNET_VOLUME": ",".join(texts)}
    assert asked(tmp_path, {}, environ).job.kubernetes.volumes == tuple(texts)
    wrong(tmp_path, {"kubernetes.volumes": ["pvc:a:/a,"]})
    with pytest.raises(ValueError):
        parse_volume_list([1])


def test_parts_of_one_claim_may_share_a_name(tmp_path: Path) -> None:
    asked(tmp_path, {"kubernetes.volumes": ["d=pvc:a/x:/x", "d=pvc:a/y:/y"]})
    for others in (["d=pvc:a/x:/x", "d=pvc:b/y:/y"], ["d=configmap:a/x:/x", "d=configmap:a/y:/y"]):
        assert "duplicate name d" in str(wrong(tmp_path, {"kubernetes.volumes": others}))


def test_what_is_wrong_is_said_of_the_text(tmp_path: Path) -> None:
    (problem,) = wrong(tmp_path, {"kubernetes.volumes": ["pvc:a/..:/x", "pvc:a:/y"]}).problems
    assert '"pvc:a/..:/x", which' in problem.what
    assert "SUBPATH" in problem.valid
