"""What a rule finds in an attachment: the field, the consequence, and the changes that correct it (pure)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torchnet.k8s.attachments.cni_config import Body, Path
from torchnet.text import printable

# What a right value looks like, by the name of its field: the fix where a rule has none of its own.
_VALID = {
    "master": '"master": the backend interface of the nodes, such as "ens5"; on a node: ip link',
    "bridge": '"bridge": a bridge of the nodes, such as "br-backend"; on a node: ip link show type bridge',
    "vlan": '"vlan": a number from 0 to 4094, or remove it',
    "type": '"type": the name of a plugin, such as "ipvlan" for the first one and "tuning" for another one',
    "name": '"name": a name of letters, digits, ., _ and -, such as "backend-network"',
    "namespace": '"namespace": a name of lowercase letters, digits and -, such as "default", or remove it',
    "interface": '"interface": a name of up to 15 characters, another one for each network, such as "net1"',
    "mac": '"mac": such as "02:00:00:00:00:01", or remove it',
    "infiniband-guid": '"infiniband-guid": such as "02:00:00:00:00:00:00:01", or remove it',
    "ips": '"ips": ["ADDRESS/LENGTH"], such as ["fcbb:0:800:ffff::50/64"]',
    "range": '"range": "NETWORK/LENGTH", such as "fcbb:0:800:ffff::/64"',
    "exclude": '"exclude": a list of parts of the range, such as ["fcbb:0:800:ffff::/112"], or remove it',
    "ipRanges": '"ipRanges": [{"range": "NETWORK/LENGTH"}]',
    "ranges": '"ranges": [[{"subnet": "NETWORK/LENGTH"}]], such as "10.9.0.0/24"; its bounds and gateway lie in it',
    "ipam": '"subnet": "NETWORK/LENGTH", such as "10.9.0.0/24"; its bounds and gateway lie in it',
    "addresses": '"addresses": [{"address": "ADDRESS/LENGTH"}], such as "10.9.0.5/24"',
    "address": '"address": "ADDRESS/LENGTH", such as "10.9.0.5/24"',
}
_RENDER = "torchnet manifests backend-network prints a valid configuration"

Level = Literal["fault", "warning"]
_SHOWN = 300  # characters of a value


@dataclass(frozen=True)
class Set:
    """Sets a value."""

    path: Path
    value: Any

    def __str__(self) -> str:
        return f"{_key(self.path)}{_json(self.value)}"


@dataclass(frozen=True)
class Remove:
    """Removes a key, or an item of a list."""

    path: Path

    def __str__(self) -> str:
        return f"remove {field_name(self.path)}"


@dataclass(frozen=True)
class AddPlugin:
    """Adds a plugin at the end; a single plugin becomes a list first."""

    plugin: Body

    def __str__(self) -> str:
        return f'add to "plugins": {_json(self.plugin)}'


Change = Set | Remove | AddPlugin


@dataclass(frozen=True)
class Finding:
    """A fault of an attachment or of a pod's request, or a warning.

    Attributes:
        path: The field; () is the whole.
        text: What is wrong.
        consequence: What happens because of it.
        changes: What corrects it; empty if that depends on the cluster.
        fix: The next step, where no change corrects it or there is another way. A fault has changes or this.
        blocks: Whether no pod gets a usable interface, so that a launch cannot succeed.
        where: NAMESPACE/NAME of the attachment, or the pod.
        condition: What must be so for the changes to be right; ``fix`` is the way out if it is not.
    """

    path: Path
    text: str
    consequence: str
    changes: tuple[Change, ...] = ()
    fix: str = ""
    level: Level = "fault"
    blocks: bool = False
    where: str = ""
    condition: str = ""

    @property
    def field(self) -> str:
        """The field as in ``plugins[0].ipam.range``; "" for the whole."""
        return field_name(self.path)

    @property
    def sentence(self) -> str:
        """Field, fault and consequence on one line."""
        field = f"{self.field}: " if self.path else ""
        return printable(f"{field}{self.text}; {self.consequence}", 600)


def refused(path: Path, text: str, consequence: str, *changes: Change, fix: str = "") -> Finding:
    """A fault with which no pod gets a usable interface."""
    fix = fix or ("" if changes else valid_form(path))
    return Finding(path, text, consequence, changes, fix, blocks=True)


def broken(
    path: Path, text: str, consequence: str, *changes: Change, fix: str = "", condition: str = ""
) -> Finding:
    """A fault with which pods start, but the network does not always do what it should."""
    fix = fix or ("" if changes else valid_form(path))
    return Finding(path, text, consequence, changes, fix, condition=condition)


def valid_form(path: Path) -> str:
    """Return what a right value of a field looks like; for an item, of its list."""
    names = [part for part in path if isinstance(part, str)]
    return _VALID.get(names[-1], _RENDER) if names else _RENDER


def warning(path: Path, text: str, consequence: str, *changes: Change, fix: str = "") -> Finding:
    """Something without effect, or a risk."""
    return Finding(path, text, consequence, changes, fix, level="warning")


def changed(body: Any, changes: Iterable[Change]) -> Any:
    """Return a copy of ``body`` with all changes; None if there are none."""
    plain = list(
        {repr(one): one for one in changes}.values()
    )  # values are not hashable, so their texts are compared
    if not plain:
        return None
    result = copy.deepcopy(body)
    for change in plain:
        if isinstance(change, Set):
            _set(result, change.path, copy.deepcopy(change.value))
    removals = [one.path for one in plain if isinstance(one, Remove)]
    # From the end: the index of an item that is still to be removed must not change.
    for path in sorted(removals, key=lambda path: [_order(part) for part in path], reverse=True):
        _remove(result, path)
    for change in plain:
        if isinstance(change, AddPlugin):
            result = _with_plugin(result, change.plugin)
    return result


def field_name(path: Path) -> str:
    """Return a path as in ``plugins[0].ipam.range``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return printable(text.lstrip("."), 200)


def _order(part: str | int) -> tuple[int, int, str]:
    return (0, part, "") if isinstance(part, int) else (1, 0, part)


def _parent(body: Any, path: Path) -> Any:
    """Return the object or list that holds the last part of a path; None if it does not exist."""
    for part in path[:-1]:
        if isinstance(body, dict) and isinstance(part, str):
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            body = body[part]
        else:
            return None
    return body


def _set(body: Any, path: Path, value: Any) -> None:
    parent, last = _parent(body, path), path[-1]
    if isinstance(parent, dict) and isinstance(last, str):
        if last == "cniVersion":  # where people expect it: before everything else
            rest = {key: item for key, item in parent.items() if key != last}
            parent.clear()
            parent.update({last: value, **rest})
        else:
            parent[last] = value
    elif isinstance(parent, list) and isinstance(last, int) and last < len(parent):
        parent[last] = value


def _remove(body: Any, path: Path) -> None:
    parent, last = _parent(body, path), path[-1]
    if isinstance(parent, dict) and isinstance(last, str):
        parent.pop(last, None)
    elif isinstance(parent, list) and isinstance(last, int) and last < len(parent):
        del parent[last]


def _with_plugin(body: Any, plugin: Body) -> Any:
    if not isinstance(body, dict):
        return body
    if isinstance(body.get("plugins"), list) and not body.get("type"):
        return body | {"plugins": [*body["plugins"], plugin]}
    shared = {key: body[key] for key in ("cniVersion", "cniVersions", "name") if key in body}
    main = {key: value for key, value in body.items() if key not in shared and key != "plugins"}
    return {**shared, "plugins": [main, plugin]}


def _key(path: Path) -> str:
    last = path[-1] if path else ""
    return f"{_json(last)}: " if isinstance(last, str) and last else f"{field_name(path)}: "


def _json(value: Any) -> str:
    return printable(json.dumps(value, ensure_ascii=False), _SHOWN)
