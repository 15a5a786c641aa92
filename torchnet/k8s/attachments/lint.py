"""All rules on attachments and requests, and their corrections (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torchnet.k8s.attachments.cni_config import CniConfig, ConfigError, parse
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.finding import Finding, Set, corrected, refused
from torchnet.k8s.attachments.ipam_rules import check_ipam
from torchnet.k8s.attachments.node_rules import check_nodes
from torchnet.k8s.attachments.plugin_rules import check_plugins
from torchnet.k8s.attachments.request_rules import Request, check_request, request_body
from torchnet.k8s.attachments.shared_rules import check_shared

_PLACEHOLDER = re.compile(r"\{\s*(?:\.\.\.|…)\s*\}")
_RENDER = "torchnet manifests backend-network prints a valid one"


@dataclass(frozen=True)
class Lint:
    """What the rules found.

    Attributes:
        checked: What was checked, in order.
        findings: What is wrong, in the order of ``checked``.
        corrections: The corrected JSON by the name of what was checked.
        skipped: A line for each thing that could not be checked.
    """

    checked: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    corrections: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are no warnings."""
        return tuple(one for one in self.findings if one.level == "fault")


def check_definition(definition: Definition, nodes: int | None = None) -> list[Finding]:
    """Return what is wrong with one attachment.

    Args:
        nodes: How many nodes the cluster has; None if unknown.
    """
    if not definition.config:
        return _node_findings(definition, nodes)
    try:
        config = parse(definition.config)
    except ConfigError as error:
        return _malformed(definition, str(error), nodes)
    if definition.ipam_only:
        return [one for one in check_ipam(config, nodes=nodes) if one.path[:1] == ("ipam",)]
    return _config_findings(config, nodes, per_node=definition.in_file, in_file=definition.in_file)


def _malformed(definition: Definition, why: str, nodes: int | None) -> list[Finding]:
    """A configuration that is no JSON; if only placeholders make it so, the rest is checked."""
    finding = refused(
        (),
        f"the configuration {why}",
        "Multus cannot read it, and the pod stays in ContainerCreating",
        fix=_RENDER,
    )
    try:
        config = parse(_PLACEHOLDER.sub("{}", definition.config))
    except ConfigError:
        return [finding]
    others = _config_findings(config, nodes, per_node=definition.in_file, in_file=definition.in_file)
    unfilled = (*config.main.path, "ipam")
    return [
        replace(finding, text=f"{finding.text}: {{ ... }} is a placeholder"),
        *(one for one in others if one.path != unfilled),
    ]


def _node_findings(definition: Definition, nodes: int | None) -> list[Finding]:
    found: list[Finding] = []
    for node, text in definition.node_configs.items():
        try:
            config = parse(text)
        except ConfigError as error:
            found = [
                refused(
                    (),
                    f"the file of {node} {error}",
                    "Multus cannot read it, and the pod stays in ContainerCreating",
                    fix=_RENDER,
                )
            ]
            break
        # Corrections apply to one object; here it is a template on the cluster.
        found = [
            replace(one, changes=()) for one in _config_findings(config, nodes, per_node=True, in_file=True)
        ]
        if found:
            break
    return [*found, *check_nodes(definition.parsed_by_node)]


def _config_findings(config: CniConfig, nodes: int | None, *, per_node: bool, in_file: bool) -> list[Finding]:
    found = list(check_plugins(config, in_file=in_file))
    has_plugin = not any(one.path in ((), ("plugins",)) and one.blocks for one in found)
    return [*found, *(check_ipam(config, per_node=per_node, nodes=nodes) if has_plugin else ())]


def lint(
    definitions: Sequence[Definition],
    requests: Sequence[Request] = (),
    *,
    nodes: int | None = None,
    are_all: bool = False,
    concerns: Sequence[str] | None = None,
    skipped: Sequence[str] = (),
) -> Lint:
    """Apply all rules.

    Args:
        definitions: The attachments.
        requests: The annotations of pods.
        nodes: How many nodes the cluster has; None if unknown.
        are_all: Whether ``definitions`` are all attachments of their namespaces, so that a missing one is a fault.
        concerns: The paths of the attachments to report on; None for all. The others are only compared with these.
        skipped: Lines for what could not be read.
    """
    reported = [one for one in definitions if concerns is None or one.path in concerns]
    others = [one for one in definitions if concerns is not None and one.path not in concerns]
    own = {one.path: check_definition(one, nodes) for one in reported}
    for definition, finding in check_shared(reported, others):
        own[definition.path].append(finding)
    findings: list[Finding] = []
    corrections: dict[str, Any] = {}
    for one in reported:
        named = [replace(finding, where=one.path) for finding in own[one.path]]
        findings += named
        if one.parsed is not None and one.config and (body := corrected(one.parsed.body, named)) is not None:
            corrections[one.path] = body
    for request in requests:
        named = [
            replace(one, where=request.where) for one in check_request(request, _lookup(definitions, are_all))
        ]
        findings += named
        if (body := _corrected_request(request, named)) is not None:
            corrections[request.where] = body
    checked = (*(one.path for one in reported), *(one.where for one in requests))
    unknown = [
        f"{one.path} has no spec: Multus reads a file on each node, which only the nodes have"
        for one in reported
        if not one.config and not one.node_configs
    ]
    return Lint(checked, tuple(findings), corrections, (*skipped, *unknown))


def _lookup(definitions: Sequence[Definition], are_all: bool) -> Any:
    by_path = {(one.namespace, one.name): one for one in definitions if not one.ipam_only}
    namespaces = {one.namespace for one in definitions}

    def lookup(namespace: str, name: str) -> CniConfig | bool | None:
        found = by_path.get((namespace, name)) or by_path.get(("", name))
        if found is None and not namespace:
            found = next((one for (_, other), one in by_path.items() if other == name), None)
        if found is None:
            return False if are_all and namespace in namespaces else None
        return found.parsed

    return lookup


def _corrected_request(request: Request, findings: Sequence[Finding]) -> Any:
    try:
        body = request_body(request.text)
    except ValueError:
        return None
    changes = [change for one in findings for change in one.changes]
    whole = [change.value for change in changes if isinstance(change, Set) and not change.path]
    if whole:
        return whole[0]
    return corrected(body, findings)
