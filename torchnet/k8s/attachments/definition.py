"""A NetworkAttachmentDefinition and what it says about pods' interfaces (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torchnet.constants import RESOURCE_ANNOTATION
from torchnet.k8s.addons.node_ranges import NODES, TEMPLATE
from torchnet.k8s.attachments.cni_config import CniConfig, ConfigError, parse

Object = dict[str, Any]
_SLICES_SUFFIX = "-slices"


@dataclass(frozen=True)
class Definition:
    """A NetworkAttachmentDefinition.

    Attributes:
        namespace: "" if unknown.
        name: Its name, or that of the file that holds the configuration.
        config: The configuration; "" if Multus reads a file on each node.
        node_configs: The content of these files by node, where it is known.
        resource: The device plugin's resource that a pod with it must request; "" without one.
        nodes_without_file: Nodes whose file has not been written, as far as it is known.
        in_file: The configuration is a file on a node.
        ipam_only: The configuration is a part of one: its ``ipam``.
        in_spec: The configuration is the text of ``spec.config``, which counts its own lines.
        not_text: Its ``spec.config`` is something else than text.
    """

    namespace: str
    name: str
    config: str = ""
    node_configs: Mapping[str, str] = field(default_factory=dict)
    resource: str = ""
    nodes_without_file: tuple[str, ...] = ()
    in_file: bool = False
    ipam_only: bool = False
    in_spec: bool = False
    not_text: bool = False

    @property
    def is_object(self) -> bool:
        """Whether it is an object of the API, not a configuration by itself."""
        return bool(self.namespace)

    @property
    def is_single(self) -> bool:
        """Whether it is a file of a node in which Multus reads a single plugin."""
        return self.in_file and not self.name.endswith(".conflist")

    @property
    def path(self) -> str:
        """``NAMESPACE/NAME``; NAME alone without a namespace."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def file_name(self) -> str:
        """The file's name without its folder, if it is a node's configuration file; else ""."""
        return self.name.rpartition("/")[2] if self.in_file else ""

    @cached_property
    def parsed(self) -> CniConfig | None:
        """The configuration, of nodes that of the first one; None if there is none, or if it is not readable."""
        text = self.config or next(iter(self.node_configs.values()), "")
        try:
            return parse(text) if text else None
        except ConfigError:
            return None

    @cached_property
    def parsed_by_node(self) -> dict[str, CniConfig]:
        """The configurations of nodes; those that are not readable are left out."""
        found = {}
        for node, text in self.node_configs.items():
            try:
                found[node] = parse(text)
            except ConfigError:
                continue
        return found


def read_definition(body: Object, slices: Mapping[str, Object] | None = None) -> Definition:
    """Return the definition that an object from the API or a file describes.

    Args:
        slices: ConfigMaps of `torchnet.k8s.addons.node_ranges` by their names.
    """
    meta = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
    spec = body.get("spec") if isinstance(body.get("spec"), dict) else {}
    assert isinstance(meta, dict)
    assert isinstance(spec, dict)
    name, text = str(meta.get("name") or ""), spec.get("config")
    config = text if isinstance(text, str) else ""
    not_text = text is not None and not isinstance(text, str)
    table = (slices or {}).get(f"{name}{_SLICES_SUFFIX}") if not config and not not_text else None
    namespace = str(meta.get("namespace") or "")
    annotations = meta.get("annotations")
    resource = annotations.get(RESOURCE_ANNOTATION) if isinstance(annotations, dict) else None
    files = node_files(table) if table else {}
    resource = resource if isinstance(resource, str) else ""
    return Definition(namespace, name, config, files, resource, in_spec=bool(config), not_text=not_text)


def slices_name(name: str) -> str:
    """Return the name of the ConfigMap that holds the files of an attachment's nodes."""
    return f"{name}{_SLICES_SUFFIX}"


def node_files(config_map: Object) -> dict[str, str]:
    """Return the file of each node that a ConfigMap of `torchnet.k8s.addons.node_ranges` describes."""
    data = config_map.get("data")
    if not isinstance(data, dict):
        return {}
    template, table = str(data.get(TEMPLATE) or ""), str(data.get(NODES) or "")
    rows = [line.split() for line in table.splitlines() if line.strip()]
    files = {}
    for row in rows[1:]:
        text = template
        for name, value in zip(rows[0][1:], row[1:], strict=False):
            text = text.replace(f"@{name}@", value)
        files[row[0]] = text
    return files
