"""All rules on attachments and requests, and their corrections (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torchnet.constants import RESOURCE_ANNOTATION
from torchnet.k8s.attachments.cni_config import CniConfig, ConfigError, parse, text_of
from torchnet.k8s.attachments.definition import Definition, slices_name
from torchnet.k8s.attachments.finding import (
    AddPlugin,
    Change,
    Finding,
    Set,
    broken,
    changed,
    refused,
    warning,
)
from torchnet.k8s.attachments.ipam_rules import check_ipam
from torchnet.k8s.attachments.node_rules import check_files, check_nodes
from torchnet.k8s.attachments.plugin_rules import check_plugins
from torchnet.k8s.attachments.request_rules import Lookup, Request, check_request, request_body
from torchnet.k8s.attachments.shared_rules import check_shared
from torchnet.k8s.attachments.type_rules import check_types
from torchnet.k8s.objects.builders import SYSTEM
from torchnet.text import listed, printable

_PLACEHOLDER = re.compile(r"\{\s*(?:\.\.\.|…)\s*\}")
_ROUNDS = 5
_DEVICE_PLUGINS = ("sriov", "ib-sriov")
_AS_TEXT = "config: |, and below it the configuration as JSON, indented"
_RENDER = "torchnet manifests backend-network prints a valid one"


@dataclass(frozen=True)
class Lint:
    """What the rules found.

    Attributes:
        checked: What was checked, in order.
        findings: What is wrong, in the order of ``checked``.
        corrections: The corrected JSON by the name of what was checked.
        conditions: What must be so for a correction to be right, by the same name; without an entry, nothing.
        remaining: How many faults the corrected JSON still has, by the same name; without an entry, none.
        skipped: A line for each thing that could not be checked.
    """

    checked: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    corrections: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    remaining: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are no warnings."""
        return tuple(one for one in self.findings if one.level == "fault")


def check_definition(
    definition: Definition, nodes: int | None = None, node_names: Sequence[str] | None = None
) -> list[Finding]:
    """Return what is wrong with one attachment.

    Args:
        nodes: How many nodes the cluster has; None if unknown.
        node_names: Their names; None if unknown.
    """
    if definition.not_text:
        text, consequence = "not text", "the API server refuses the object"
        return [refused(("spec", "config"), text, consequence, fix=_AS_TEXT)]
    if not definition.config:
        return [*_node_findings(definition, nodes), *_check_files(definition, node_names)]
    found = _own_findings(definition, nodes)
    return [_without_list(one) for one in found] if definition.is_single else found


def _without_list(one: Finding) -> Finding:
    """In a file whose name does not end in .conflist, Multus reads one plugin."""
    added = [change for change in one.changes if isinstance(change, AddPlugin)]
    if not added:
        return one
    others = tuple(change for change in one.changes if change not in added)
    return replace(
        one, changes=others, fix=f"a list of plugins, in a file that is named .conflist; {added[0]}"
    )


def _own_findings(definition: Definition, nodes: int | None) -> list[Finding]:
    try:
        config = parse(definition.config)
    except ConfigError as error:
        return _malformed(definition, str(error), nodes)
    if definition.ipam_only:
        both = (*check_ipam(config, nodes=nodes), *check_types(config))
        return [one for one in both if one.path[:1] == ("ipam",)]
    found = _config_findings(config, nodes, per_node=definition.in_file, in_file=definition.in_file)
    if definition.is_single and config.is_list:
        text = "a list of plugins in a file whose name does not end in .conflist"
        consequence = "Multus refuses the file, and reads none of those after it"
        found.append(refused(("plugins",), text, consequence, fix="rename it to NAME.conflist"))
    return [*found, *_device(definition, config)]


def _device(definition: Definition, config: CniConfig) -> Iterator[Finding]:
    """Plugins that move a device into the pod get it from a device plugin, as Multus finds it by an annotation."""
    main = config.main
    if (
        main.type in _DEVICE_PLUGINS
        and definition.is_object
        and not definition.resource
        and "deviceID" not in main.body
    ):
        yield broken(
            (*main.path, "type"),
            f"{main.type} without the annotation {RESOURCE_ANNOTATION}",
            "Multus passes no device to the plugin, and the pod stays in ContainerCreating",
            fix=f"in metadata.annotations: {RESOURCE_ANNOTATION}: the resource of the device plugin",
        )


def _malformed(definition: Definition, why: str, nodes: int | None) -> list[Finding]:
    """A configuration that is no JSON; if only placeholders make it so, the rest is checked."""
    place = " of spec.config" if definition.in_spec and " at line " in why else ""
    finding = refused(
        (),
        f"the configuration {why}{place}",
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
            replace(one, changes=(), fix=one.fix or "; ".join(map(str, one.changes)))
            for one in _config_findings(config, nodes, per_node=True, in_file=True)
        ]
        name = text_of(config.body, "name")
        if name and name != definition.name:
            text = f'"{printable(name, 80)}" in the file of {printable(node, 80)} is not {definition.name}'
            found.append(
                refused(("name",), text, "Multus finds no file of the attachment's name", fix=_RENDER)
            )
        if found:
            break
    return [*found, *check_nodes(definition.parsed_by_node)]


def _check_files(definition: Definition, nodes: Sequence[str] | None) -> list[Finding]:
    """Nodes on which Multus finds no file; whether pods can run there is not known here."""
    without = (
        [one for one in nodes or () if one not in definition.node_configs] if definition.node_configs else []
    )
    found = []
    if without:
        found.append(
            warning(
                (),
                f"no part of the range for {listed(without)}",
                "pods stay in ContainerCreating there",
                fix="torchnet manifests backend-network --slice NODE=CIDR ... with all nodes that run workers",
            )
        )
    if definition.nodes_without_file:
        found.append(
            broken(
                (),
                f"the file is missing or old on {listed(definition.nodes_without_file)}",
                "pods stay in ContainerCreating there, or get addresses of an earlier range",
                fix=f"kubectl get pods -n {SYSTEM} -l app={slices_name(definition.name)} -o wide",
            )
        )
    return found


def _config_findings(config: CniConfig, nodes: int | None, *, per_node: bool, in_file: bool) -> list[Finding]:
    found = list(check_plugins(config, in_file=in_file))
    has_plugin = not any(one.path in ((), ("plugins",)) and one.blocks for one in found)
    if not has_plugin:
        return found
    return [*found, *check_types(config), *check_ipam(config, per_node=per_node, nodes=nodes)]


def lint(
    definitions: Sequence[Definition],
    requests: Sequence[Request] = (),
    *,
    nodes: Sequence[str] | None = None,
    is_complete: Callable[[str], bool] = lambda _: False,
    concerns: Sequence[str] | None = None,
    skipped: Sequence[str] = (),
) -> Lint:
    """Apply all rules.

    Args:
        definitions: The attachments.
        requests: The annotations of pods.
        nodes: The names of the cluster's nodes; None if unknown.
        is_complete: Whether ``definitions`` has all attachments of a namespace, so that a missing one is a fault.
        concerns: The paths of the attachments to report on; None for all. The others are only compared with these.
        skipped: Lines for what could not be read.
    """
    reported = [one for one in definitions if concerns is None or one.path in concerns]
    others = [one for one in definitions if concerns is not None and one.path not in concerns]
    count = None if nodes is None else len(nodes)
    own = _findings_of(reported, others, nodes)
    findings: list[Finding] = []
    corrections: dict[str, Any] = {}
    conditions: dict[str, str] = {}
    corrected: list[Definition] = []
    for one, found in zip(reported, own, strict=True):
        named = [replace(finding, where=one.path) for finding in found]
        findings += named
        body, condition = _corrected_config(one, named, count)
        if body is not None:
            corrections[one.path] = body
        if condition:
            conditions[one.path] = condition
        corrected.append(one if body is None else replace(one, config=json.dumps(body)))
    # What is left if all corrections are applied.
    left = (
        {
            one.path: _faults(found)
            for one, found in zip(corrected, _findings_of(corrected, others, nodes), strict=True)
        }
        if corrections
        else {}
    )
    lookup, lookup_corrected = (_lookup([*others, *found], is_complete) for found in (reported, corrected))
    for request in requests:
        named = [replace(one, where=request.where) for one in check_request(request, lookup)]
        findings += named
        if (body := _corrected_request(request, lookup)) is not None:
            corrections[request.where] = body
            asked = replace(request, text=json.dumps(body))
            left[request.where] = _faults(check_request(asked, lookup_corrected))
    checked = (*(one.path for one in reported), *(one.where for one in requests))
    unknown = [
        f"{one.path} has no spec: Multus reads a file on each node, which only the nodes have"
        for one in reported
        if not one.config and not one.node_configs and not one.not_text
    ]
    remaining = {name: left[name] for name in corrections if left[name]}
    return Lint(checked, tuple(findings), corrections, conditions, remaining, (*skipped, *unknown))


def _findings_of(
    definitions: Sequence[Definition], others: Sequence[Definition], nodes: Sequence[str] | None
) -> list[list[Finding]]:
    """Return what is wrong with each attachment, by itself and beside the others."""
    count = None if nodes is None else len(nodes)
    # By identity: a file may have two of a name.
    found = {id(one): check_definition(one, count, nodes) for one in definitions}
    for definition, finding in (*check_shared(definitions, others), *check_files(definitions)):
        found[id(definition)].append(finding)
    return [found[id(one)] for one in definitions]


def _faults(findings: Iterable[Finding]) -> int:
    return sum(one.level == "fault" for one in findings)


def _lookup(definitions: Sequence[Definition], is_complete: Callable[[str], bool]) -> Lookup:
    by_path = {(one.namespace, one.name): one for one in definitions if not one.ipam_only}

    def lookup(namespace: str, name: str) -> Definition | Literal[False] | None:
        found = by_path.get((namespace, name)) or by_path.get(("", name))
        if found is None and not namespace:
            found = next((one for (_, other), one in by_path.items() if other == name), None)
        if found is None:
            return False if is_complete(namespace) else None
        return found

    return lookup


def _corrected_config(
    definition: Definition, findings: Sequence[Finding], nodes: int | None
) -> tuple[Any, str]:
    """Return the corrected configuration, None if it cannot be corrected, or need not be; and its condition.

    A correction can make another one necessary: an interface of mode l2 receives router advertisements.
    """
    if definition.parsed is None or not definition.config:
        return None, ""
    body = changed(definition.parsed.body, _changes(findings))
    conditions = [one.condition for one in findings]
    for _ in range(_ROUNDS if body is not None else 0):
        found = check_definition(replace(definition, config=json.dumps(body)), nodes)
        again = changed(body, _changes(found))
        if again is None:
            break
        body = again
        conditions += [one.condition for one in found]
    return body, ", and if ".join(dict.fromkeys(filter(None, conditions)))


def _changes(findings: Sequence[Finding]) -> list[Change]:
    return [change for one in findings for change in one.changes]


def _corrected_request(request: Request, lookup: Lookup) -> Any:
    """Return the corrected annotation as JSON; None if it cannot be corrected, or need not be."""
    body = None
    for _ in range(_ROUNDS):
        try:
            before = request_body(request.text)
        except ValueError:
            return None
        changes = [change for one in check_request(request, lookup) for change in one.changes]
        whole = [change.value for change in changes if isinstance(change, Set) and not change.path]
        again = whole[0] if whole else changed(before, changes)
        if again is None:
            break
        body = again
        request = replace(request, text=json.dumps(body))
    return body
