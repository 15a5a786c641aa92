"""The attachments and requests in users' files: manifests, files of a node, and parts of them (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torchnet.constants import NETWORKS_ANNOTATION
from torchnet.k8s.addons.node_ranges import TEMPLATE
from torchnet.k8s.attachments.definition import Definition, Object, read_definition
from torchnet.k8s.attachments.request_rules import Request
from torchnet.text import printable
from torchnet.yaml_io import read_all

_DEEPEST = 40  # levels in which the metadata of pods are searched


@dataclass
class Documents:
    """What files contain."""

    definitions: list[Definition] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


def read_documents(name: str, data: bytes) -> Documents:
    """Return the attachments and requests in one file.

    The file holds manifests (YAML or JSON), the configuration of an attachment, or a part of one: ``spec``, ``ipam`` or
    the annotations of a pod. A file that begins with a brace is JSON: if it is none, its text is checked as a
    configuration. One that begins with a bracket is the annotation itself.

    Args:
        name: The file's name, for what has no name of its own.

    Raises:
        YamlError: The file is neither.
    """
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    first = text.lstrip()[:1]
    if first == "[":
        bodies = _json_list(text)
        if not any(_is_manifest(one) for one in bodies):
            return Documents(requests=[Request(name, "", text)])
    elif first == "{":
        try:
            bodies = [json.loads(text)]
        except (ValueError, RecursionError):
            return Documents([_file(name, text)])
        if not _is_manifest(bodies[0]):
            return Documents([_file(name, text)])
    else:
        bodies = read_all(data)
    return _collect(name, [one for body in bodies for one in _items(body)])


def _json_list(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _is_manifest(body: Any) -> bool:
    return isinstance(body, dict) and any(
        key in body for key in ("kind", "spec", "metadata", "annotations", "items")
    )


def _file(name: str, text: str) -> Definition:
    """A configuration by itself. Files of nodes are named like this, and differ between nodes."""
    in_file = name.endswith((".conflist", ".conf")) or (name.endswith(".json") and "/net.d/" in name)
    return Definition("", name, text, in_file=in_file)


def _items(body: Any) -> Iterator[Object]:
    if isinstance(body, dict) and isinstance(body.get("items"), list):
        for one in body["items"]:
            yield from _items(one)
    elif isinstance(body, dict):
        yield body


def _collect(name: str, bodies: Sequence[Object]) -> Documents:
    found = Documents()
    slices = {
        _name(body): body
        for body in bodies
        if isinstance(body.get("data"), dict) and TEMPLATE in body["data"]
    }
    for number, body in enumerate(bodies):
        kind = body.get("kind")
        title = f"{name}#{number + 1}" if len(bodies) > 1 else name  # where it has no name of its own
        if kind == "NetworkAttachmentDefinition":
            found.definitions.append(_named(read_definition(body, slices), title))
        elif kind is None and isinstance(body.get("spec"), dict) and "config" in body["spec"]:
            found.definitions.append(_named(read_definition(body), title))
        elif kind is None and ("plugins" in body or "type" in body):
            found.definitions.append(_file(title, json.dumps(body, default=str)))
        elif kind is None and "ipam" in body:
            found.definitions.append(Definition("", title, json.dumps(body, default=str), ipam_only=True))
        else:
            found.requests += _requests(body, title)
    return found


def _named(definition: Definition, name: str) -> Definition:
    if definition.name:
        return definition
    return replace(definition, name=name)


def _name(body: Object) -> str:
    meta = body.get("metadata")
    return str(meta.get("name") or "") if isinstance(meta, dict) else ""


def _requests(body: Object, name: str) -> Iterator[Request]:
    meta = body.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    namespace = str(meta.get("namespace") or "")
    title = f"{body.get('kind') or ''} {_name(body) or name}".strip()
    for text in _annotations(body, 0):
        yield Request(printable(title, 200), namespace, text)


def _annotations(value: Any, depth: int) -> Iterator[str]:
    """Yield the annotation of a pod, or of the templates of a workload."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        annotations = value.get("annotations")
        if isinstance(annotations, dict) and isinstance(text := annotations.get(NETWORKS_ANNOTATION), str):
            yield text
        for inner in value.values():
            yield from _annotations(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _annotations(inner, depth + 1)
