"""How ``torchnet network`` prints findings and addresses: as text, or as one JSON document."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from torchnet.console.text_table import table
from torchnet.k8s.attachments.address_listing import AddressListing
from torchnet.k8s.attachments.address_pool import Lease
from torchnet.k8s.attachments.address_table import AddressTable, Row
from torchnet.k8s.attachments.cni_config import Body, text_of
from torchnet.k8s.attachments.finding import Finding
from torchnet.k8s.attachments.lint import Lint
from torchnet.k8s.client.kinds import IP_POOL
from torchnet.text import listed, printable
from torchnet.units import counted

LINT_FORMAT, ADDRESS_FORMAT = "torchnet.network-lint/1", "torchnet.network-show/1"
_MARKS = {"fault": "FAULT", "warning": "warn "}
_WIDTH = 160  # where there is no terminal
_HEADINGS = ("ADDRESS", "POD", "INTERFACE", "NODE", "STATE")
_SHOWN = 1000  # rows
_SHOWN_PARTS = 100
_AT_ONCE = 50  # leases in one command: if one of them has changed, none is released
_RESERVATIONS = "overlappingrangeipreservations.whereabouts.cni.cncf.io"


def lint_text(found: Lint) -> str:
    """Format what the rules found, for people."""
    return "".join(f"{line}\n" for line in _lint_lines(found))


def _lint_lines(found: Lint) -> Iterator[str]:
    for where in dict.fromkeys(one.where for one in found.findings):
        yield printable(where, 200)
        for one in found.findings:
            if one.where == where:
                yield from _finding_lines(one)
        if where in found.corrections:
            condition, left = found.conditions.get(where), found.remaining.get(where)
            words = ["corrected", *([f"if {condition}"] if condition else [])]
            words += [f"but {counted(left, 'fault')} {'remains' if left == 1 else 'remain'}"] if left else []
            yield f"  {', '.join(words)}:"
            yield from (f"    {line}" for line in json.dumps(found.corrections[where], indent=2).splitlines())
        yield ""
    yield from (f"not checked: {line}" for line in found.skipped)
    faults, warnings = len(found.faults), len(found.findings) - len(found.faults)
    yield f"{counted(faults, 'fault')} and {counted(warnings, 'warning')} in {counted(len(found.checked), 'object')}"


def _finding_lines(one: Finding) -> Iterator[str]:
    field = f"{one.field}: " if one.path else ""
    yield f"  {_MARKS[one.level]}  {field}{printable(one.text, 400)}"
    yield f"         {printable(one.consequence, 400)}"
    for change in one.changes:
        yield f"         correct{f', if {one.condition}' if one.condition else ''}: {change}"
    if one.fix:
        yield f"         fix: {printable(one.fix, 400)}"


def lint_document(found: Lint) -> dict[str, Any]:
    """Return what the rules found as one JSON document."""
    return {
        "format": LINT_FORMAT,
        "checked": list(found.checked),
        "findings": [
            {
                "where": one.where,
                "level": one.level,
                "field": one.field,
                "fault": one.text,
                "consequence": one.consequence,
                "corrections": [str(change) for change in one.changes],
                "condition": one.condition,
                "fix": one.fix,
                "blocks": one.blocks,
            }
            for one in found.findings
        ],
        "corrected": found.corrections,
        "conditions": found.conditions,
        "remaining_faults": found.remaining,
        "not_checked": list(found.skipped),
    }


def address_text(found: AddressListing) -> str:
    """Format the addresses of an attachment, for people."""
    return "".join(f"{line}\n" for line in _address_lines(found))


def _address_lines(found: AddressListing) -> Iterator[str]:
    addresses = found.table
    yield f"{found.definition.path}: {_kind(found)}"
    for use in addresses.uses:
        yield f"  {use.range}: {use.capacity:,} addresses, {len(use.leases):,} held, {use.free:,} free"
    for part in found.parts[:_SHOWN_PARTS]:
        capacity = f"{part.range.capacity:,} addresses"
        if part.node:
            place = f"{printable(part.node, 80)}: {part.range.bounds}"
            yield f"  {place}: {capacity}, {part.held:,} held, {part.free:,} free"
        else:
            yield f"  {part.range.bounds}: {capacity} on each node"
    if len(found.parts) > _SHOWN_PARTS:
        yield f"  and {len(found.parts) - _SHOWN_PARTS:,} more: -o json"
    yield ""
    if addresses.rows:
        width = shutil.get_terminal_size((_WIDTH, 24)).columns
        yield table(_HEADINGS, [_cells(row) for row in addresses.rows[:_SHOWN]], width).rstrip("\n")
    else:
        yield "no pod has an address of it"
    if len(addresses.rows) > _SHOWN:
        yield f"and {len(addresses.rows) - _SHOWN:,} more: -o json"
    for address, rows in addresses.duplicates.items():
        yield ""
        yield f"duplicate: {address} is held by {listed([row.pod for row in rows], 8)}"
        yield f"  fix: delete one of the pods: kubectl delete pod -n {_namespaced(rows[-1].pod)}"
    config = found.definition.parsed
    yield from _stale_lines(addresses, config.ipam if config is not None else {})


def _kind(found: AddressListing) -> str:
    definition, config = found.definition, found.definition.parsed
    if config is None:
        has_file = not definition.config and not definition.not_text
        return "no spec: Multus reads a file on each node" if has_file else "its configuration is no JSON"
    parts = [" ".join(part for part in (config.main.type, config.mode) if part)]
    parts += [f"on {config.master}"] if config.master else []
    return printable(f"{' '.join(parts)}, addresses by {config.ipam_type or 'nobody'}", 200)


def _cells(row: Row) -> tuple[str, ...]:
    state = f"stale: {row.state}" if row.is_stale else row.state
    cells = (str(row.address), row.pod or "?", row.interface, row.node, state)
    return tuple(printable(cell, 200) for cell in cells)


def _stale_lines(addresses: AddressTable, ipam: Body) -> Iterator[str]:
    if not addresses.stale:
        return
    leases = [row.lease for row in addresses.stale if row.lease is not None and row.state == "gone"]
    yield ""
    stale = counted(len(addresses.stale), "stale lease")
    yield f"{stale}: Whereabouts' reconciler releases those of pods that do not exist,"
    yield "with torchnet's manifests once a day."
    if not leases:
        return
    gone = counted(len(leases), "lease")
    yield f"To release {gone} of pods that are gone now, if none still runs on a node that is lost:"
    for command in release_commands(leases, ipam):
        yield f"  {command}"


def release_commands(leases: Sequence[Lease], ipam: Body) -> list[str]:
    """Return commands that release leases and then their reservations; each does nothing if one lease has changed.

    A pod of the same name gets the same lease, with the id of its own sandbox. With ``enable_overlapping_ranges``
    false, a lease has no reservation, and one of its name is another attachment's.

    Args:
        ipam: The attachment's IPAM configuration.
    """
    network_name = None
    if ipam.get("enable_overlapping_ranges") is not False:
        network_name = text_of(ipam, "network_name")
    by_pool: dict[tuple[str, str], list[Lease]] = defaultdict(list)
    for one in leases:
        by_pool[one.pool_namespace, one.pool].append(one)
    return [
        _release_command(namespace, pool, found[at : at + _AT_ONCE], network_name)
        for (namespace, pool), found in by_pool.items()
        for at in range(0, len(found), _AT_ONCE)
    ]


def _release_command(namespace: str, pool: str, leases: Sequence[Lease], network_name: str | None) -> str:
    """``network_name`` is the reservations'; None if there are none."""
    patch: list[dict[str, str]] = []
    for one in leases:
        path = f"/spec/allocations/{one.key}"
        patch += [
            {"op": "test", "path": f"{path}/podref", "value": one.pod},
            {"op": "test", "path": f"{path}/id", "value": one.container},
            {"op": "remove", "path": path},
        ]
    change = [
        "kubectl",
        "patch",
        IP_POOL.resource,
        pool,
        "-n",
        namespace,
        "--type",
        "json",
        "-p",
        json.dumps(patch),
    ]
    if network_name is None:
        return shlex.join(change)
    prefix = f"{network_name}-" if network_name else ""
    names = [prefix + str(one.address).replace(":", "-") for one in leases]
    delete = ["kubectl", "delete", _RESERVATIONS, "-n", namespace, "--ignore-not-found", *names]
    return f"{shlex.join(change)} && {shlex.join(delete)}"


def _namespaced(pod: str) -> str:
    namespace, _, name = pod.partition("/")
    return f"{printable(namespace, 63)} {printable(name, 253)}"


def address_document(found: AddressListing) -> dict[str, Any]:
    """Return the addresses of an attachment as one JSON document."""
    addresses = found.table
    return {
        "format": ADDRESS_FORMAT,
        "attachment": found.definition.path,
        "ranges": [
            *(
                {
                    "node": None,
                    "range": str(use.range),
                    "addresses": use.capacity,
                    "held": len(use.leases),
                    "free": use.free,
                }
                for use in addresses.uses
            ),
            *(
                {
                    "node": part.node or None,
                    "range": part.range.bounds,
                    "addresses": part.range.capacity,
                    "held": part.held if part.node else None,
                    "free": part.free if part.node else None,
                }
                for part in found.parts
            ),
        ],
        "addresses": [
            {
                "address": str(row.address),
                "pod": row.pod or None,
                "interface": row.interface or None,
                "node": row.node or None,
                "state": row.state,
                "stale": row.is_stale,
            }
            for row in addresses.rows
        ],
        "duplicates": {
            str(address): [row.pod for row in rows] for address, rows in addresses.duplicates.items()
        },
        "not_read": list(found.skipped),
    }
