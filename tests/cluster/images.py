"""Images as OCI layout archives, packed here: no registry, no builder.

The format is the OCI image specification's image layout (v1.0), as `ctr images import` reads it: a tar with
`oci-layout`, `index.json` and `blobs/sha256/…`.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Image:
    """One image of one layer: either a whole root file system (a tar), or single files.

    ``files`` is path in the image -> its source, executable there; ``links`` is path in the image -> target.
    """

    names: tuple[str, ...]
    root: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""


def pack(image: Image, archive: Path) -> None:
    """Write the archive; beside it, for a while, a layer of the same size."""
    layer = image.root or archive.with_suffix(".layer")
    if image.root is None:
        _layer(image, layer)
    with layer.open("rb") as stream:
        digest = _digest(stream)
    size = layer.stat().st_size
    blobs: dict[str, bytes] = {}
    settings = {
        "Env": [f"PATH={PATH}"],
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.command),
        "User": image.user,
    }
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _put(blobs, config, f"{OCI}.config.v1+json"),
        "layers": [{"mediaType": f"{OCI}.layer.v1.tar", "digest": f"sha256:{digest}", "size": size}],
    }
    entry = _put(blobs, manifest, f"{OCI}.manifest.v1+json")
    entries = [{**entry, "annotations": {"io.containerd.image.name": name}} for name in image.names]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
        for name, data in blobs.items():
            _add(tar, f"blobs/sha256/{name}", data)
        tar.add(layer, f"blobs/sha256/{digest}")
    if image.root is None:
        layer.unlink()


def _digest(stream: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _put(blobs: dict[str, bytes], content: dict[str, Any], kind: str) -> dict[str, Any]:
    """Add a JSON blob; its descriptor."""
    data = json.dumps(content).encode()
    name = hashlib.sha256(data).hexdigest()
    blobs[name] = data
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data)}


def _layer(image: Image, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for folder in ("bin", "etc", "run", "tmp", "var"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        # Some programs look up their own user.
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\n")
        for name, target in image.links.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for name, source in image.files.items():
            _add(tar, name.lstrip("/"), source.read_bytes(), 0o755)


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
