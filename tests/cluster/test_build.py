"""The cluster's parts without a cluster: keys, images, and what the machine must have."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.cluster import golang, machine, parts, recipes, versions
from tests.cluster.addons import ROOT
from tests.cluster.images import Image, pack
from tests.cluster.parts import Part
from tests.cluster.shell import ClusterFailure
from torchnet.k8s.addons.images import PYTORCH


def test_ci_installs_what_it_is_made_of() -> None:
    words = (ROOT / ".ci" / "run").read_text().split()
    assert [name for name in versions.DEBIAN_PROGRAMS.values() if name not in words] == []


def test_the_images_have_the_names_that_the_manifests_pin() -> None:
    texts = [path.read_text() for path in (ROOT / "manifests").glob("*.yaml")]
    named = {name for text in texts for name in re.findall(r"^ *image: (\S+)$", text, re.MULTILINE)}
    assert named == {versions.MULTUS_IMAGE, versions.WHEREABOUTS_IMAGE, PYTORCH}
    assert PYTORCH in versions.WORKER_NAMES


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setattr(parts, "PARTS", tmp_path)
    return []


def part(name: str, recipe: str, made: list[str], *needs: Part) -> Part:
    def make(folder: Path) -> None:
        made.append(name)
        (folder / "it").write_text(recipe)

    return Part(name, recipe, make, list(needs))


def test_what_is_unchanged_is_not_made_again(counted: list[str]) -> None:
    for recipe, expected in (("1", ["a", "b"]), ("1", []), ("2", ["a", "b"]), ("1", [])):
        below = part("a", recipe, counted)
        above = part("b", "same", counted, below)
        above.build()
        assert counted == expected
        assert (below.folder / "it").read_text() == recipe
        counted.clear()


def test_a_part_that_failed_is_not_there(counted: list[str], tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").touch()
        raise ClusterFailure("no")

    broken = Part("broken", "", make)
    with pytest.raises(ClusterFailure):
        broken.build()
    assert not broken.built
    parts.forget_old([])
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_part_of_the_key() -> None:
    folders = {recipes._part("x", recipes._jobset, version).folder.name for version in ("v1", "v2")}
    assert len(folders) == 2


def test_an_image_is_an_oci_layout(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    image = Image(("a/b:1", "c/d:2"), None, {"/x/program": program}, {"/bin/sh": "busybox"})
    pack(image, tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as tar:
        files = {entry.name: tar.extractfile(entry) for entry in tar.getmembers()}
        blobs = {name: stream.read() for name, stream in files.items() if stream}
    index = json.loads(blobs["index.json"])
    names = [one["annotations"]["io.containerd.image.name"] for one in index["manifests"]]
    assert names == ["a/b:1", "c/d:2"]
    for name, data in blobs.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    manifest = json.loads(blobs[f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"])
    (layer,) = manifest["layers"]
    (tmp_path / "layer").write_bytes(blobs[f"blobs/sha256/{layer['digest'][7:]}"])
    assert layer["size"] == (tmp_path / "layer").stat().st_size
    with tarfile.open(tmp_path / "layer") as tar:
        assert tar.getmember("x/program").mode == 0o755
        assert tar.getmember("bin/sh").linkname == "busybox"
        assert tar.getmember("tmp").mode == 0o1777


def test_a_go_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.19.8\n")
    old.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(old))
    monkeypatch.setattr(golang, "INSTALLED", str(tmp_path / "none"))
    golang.go.cache_clear()
    try:
        with pytest.raises(ClusterFailure, match=r"install Go 1\.25\.5 or newer .*/go is go1\.19\.8"):
            golang.go()
    finally:
        golang.go.cache_clear()


def test_all_that_is_in_the_way_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert machine.obstacles() == ["only root can make the nodes' networks and mounts"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "DEBIAN_PROGRAMS", {"/no/such": "first", "/nor/this": "second"})
    (packages,) = [line for line in machine.obstacles() if "first" in line]
    assert packages.endswith(" first second")
