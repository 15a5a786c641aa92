"""The notation of ``--volume``: persistent claims, ConfigMaps, Secrets, scratch space, host paths, CSI volumes. Pure.

Each ``parse_*`` function returns the parsed value or raises ``ValueError``, whose text completes a sentence that begins
with the input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from torchnet.config.k8s_syntax import parse_mount_path, parse_quantity, parse_subdomain
from torchnet.config.k8s_values import SECRET_VOLUME
from torchnet.config.parsing import parse_label, parse_list, parse_nonempty, parse_text, quote

VOLUME_KINDS = ("pvc", "configmap", "secret", "hostpath", "emptydir", "csi")
_RESERVED = ("code", "work", "state", "token", "api", "shm", "script", "status")
_KINDS = "|".join(VOLUME_KINDS)
# A comma separates two volumes of one text, such as a variable's, but also the attributes of a csi volume.
_NEXT_VOLUME = re.compile(rf",(?=\s*(?:[^,:=]*=)?(?:{_KINDS}):)")
_NEXT_ATTRIBUTE = re.compile(r",(?=[^,=]+=)")
_LONGEST_DRIVER = 63
_NO_CLAIMS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Volume:
    """A volume of ``--volume`` and its mount.

    Attributes:
        kind: One of `VOLUME_KINDS`.
        source: Claim of a pvc, name of a configmap or secret, path of a hostpath, size of an emptydir ("" for none),
            driver of a csi volume.
        path: Mount path.
        sub_path: The part to mount: a directory or file of a pvc, a key of a configmap or secret; "" for everything.
        attributes: Of a csi volume, for its driver, by name.
        fs_type, publish_secret: Further fields of a csi volume; "" if not set.
    """

    name: str
    kind: str
    source: str
    path: str
    read_only: bool = False
    sub_path: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    fs_type: str = ""
    publish_secret: str = ""


def parse_volume_list(value: object) -> tuple[str, ...]:
    """Parse texts of ``--volume`` from a list or from comma-separated text."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        return parse_list(value)
    return tuple(parse_nonempty(text.strip()) for item in items for text in _NEXT_VOLUME.split(item))


def parse_volume(text: str) -> Volume:
    """Parse one ``--volume``; the default NAME is built from the kind and the path."""
    head, equals, rest = text.partition("=")
    if not equals or ":" in head:
        head, rest = "", text
    kind, _, rest = rest.partition(":")
    if kind not in VOLUME_KINDS:
        raise ValueError(f"has no valid kind of volume; valid kinds: {', '.join(VOLUME_KINDS)}")
    read_only = rest.endswith(":ro")
    rest = rest.removesuffix(":ro").removesuffix(":rw")
    parts = rest.split(":")
    if kind == "emptydir" and len(parts) == 1:
        parts = ["", *parts]
    elif kind == "csi":
        parts = rest.rsplit(":", 1)  # attributes may contain colons
    if len(parts) != 2:
        raise ValueError(f"is not {kind}:SOURCE:/PATH")
    path = parse_mount_path(parts[1])
    if "," in path:
        raise ValueError("has a comma in its mount path")
    source, more = _parse_source(kind, parts[0])
    default = f"{kind}{re.sub(r'[^a-z0-9]+', '-', path.lower())}".rstrip("-")[:63].rstrip("-")
    name = parse_label(head) if head else default
    if name in _RESERVED or name.startswith(SECRET_VOLUME):
        raise ValueError(f"has the name {name}, which torchnet reserves")
    return Volume(name, kind, source, path, read_only or kind in ("configmap", "secret"), **more)


def _parse_source(kind: str, text: str) -> tuple[str, dict[str, Any]]:
    """Return the source, and further fields of `Volume`."""
    if kind == "hostpath":
        return parse_mount_path(text), {}
    if kind == "emptydir":
        return parse_quantity(text) if text else "", {}
    if kind == "csi":
        return _parse_csi(text)
    name, slash, below = text.partition("/")
    return parse_subdomain(name), {"sub_path": _parse_sub_path(below)} if slash else {}


def _parse_sub_path(text: str) -> str:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or not parts or not text.isprintable():
        raise ValueError("has a path that is not inside the volume")
    return "/".join(parts)


def _parse_csi(text: str) -> tuple[str, dict[str, Any]]:
    """Parse ``DRIVER[,KEY=VALUE…]``: a volume that the driver makes for each pod, and that ends with the pod."""
    driver, *pairs = _NEXT_ATTRIBUTE.split(text)
    # k8s.io/kubernetes: ValidateCSIDriverName
    parse_subdomain(driver.lower())
    if len(driver) > _LONGEST_DRIVER:
        raise ValueError(f"has a driver of {len(driver)} characters; the limit is {_LONGEST_DRIVER}")
    values: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key in values:
            raise ValueError(f"has the attribute {quote(key)} twice")
        values[key] = parse_text(value)
    secret = values.pop("nodePublishSecretRef", None)
    return driver, {
        "fs_type": values.pop("fsType", ""),
        "publish_secret": parse_subdomain(secret) if secret is not None else "",
        "attributes": tuple(sorted(values.items())),
    }


def parse_volumes(texts: Iterable[str], claims: Mapping[str, str] = _NO_CLAIMS) -> list[Volume]:
    """Parse the volumes of one pod, those of one claim under one name.

    A pod whose volumes name the same claim twice may never start: the kubelet mounts the claim once, and waits for the
    second volume (kubernetes/kubernetes#51853).

    Args:
        claims: By claim, the name of a volume that the pod has already.
    """
    names = dict(claims)
    found = []
    for volume in map(parse_volume, texts):
        if volume.kind == "pvc":
            volume = replace(volume, name=names.setdefault(volume.source, volume.name))
        found.append(volume)
    return found


def duplicate_names(volumes: Sequence[Volume]) -> list[str]:
    """Return the names that volumes with different sources have, in order."""
    sources: dict[str, set[tuple[str, str]]] = {}
    for number, volume in enumerate(volumes):
        own = volume.source if volume.kind == "pvc" else str(number)
        sources.setdefault(volume.name, set()).add((volume.kind, own))
    return sorted(name for name, found in sources.items() if len(found) > 1)
