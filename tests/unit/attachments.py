"""Configurations of attachments, and what the rules say about them."""

from __future__ import annotations

import copy
import json
from typing import Any

from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.finding import Finding
from torchnet.k8s.attachments.lint import Lint, check_definition, lint

Body = dict[str, Any]
TUNING: Body = {"type": "tuning", "sysctl": {"net.ipv6.conf.IFNAME.accept_ra": "0"}}
WHEREABOUTS: Body = {"type": "whereabouts", "range": "fcbb:0:800:ffff::/64"}
HOST_LOCAL: Body = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]}


def plugin(kind: str = "ipvlan", ipam: Body | None = None, **fields: Any) -> Body:
    """One plugin; a field that is None is left out."""
    base: Body = {
        "type": kind,
        "master": "ens5",
        "ipam": copy.deepcopy(ipam if ipam is not None else WHEREABOUTS),
    }
    if kind == "bridge":
        base = {"type": kind, "bridge": "br0", "ipam": base["ipam"]}
    return {key: value for key, value in (base | fields).items() if value is not None}


def config(main: Body | None = None, *chained: Body, **fields: Any) -> Body:
    """A list of plugins without faults, unless ``main`` or ``fields`` have some."""
    chained = chained or (TUNING,)
    body = {"cniVersion": "1.0.0", "name": "net", "plugins": [main or plugin(), *chained]}
    return {key: value for key, value in (body | fields).items() if value is not None}


def single(main: Body | None = None, **fields: Any) -> Body:
    """A single plugin; IPv4 needs no more."""
    ipam = {"type": "whereabouts", "range": "10.9.0.0/24"}
    return {"cniVersion": "1.0.0", "name": "net", **(main or plugin(ipam=ipam)), **fields}


def definition(body: object, name: str = "net", namespace: str = "ml", **fields: Any) -> Definition:
    text = body if isinstance(body, str) else json.dumps(body)
    return Definition(namespace, name, text, **fields)


def findings(body: object, nodes: int | None = None) -> list[Finding]:
    return check_definition(definition(body), nodes)


def fields(body: object, nodes: int | None = None) -> list[str]:
    """The fields with findings: ``!`` before one that blocks, ``~`` before a warning."""
    return [
        ("!" if one.blocks else "~" if one.level == "warning" else "") + one.field
        for one in findings(body, nodes)
    ]


def linted(*bodies: object) -> Lint:
    return lint([definition(body, f"net{number}") for number, body in enumerate(bodies)])
